"""The compiled kernel as a callback of anybody's module."""

import shutil

import pytest
import torch
from foreign import Foreign, fit
from torch import nn
from torch.profiler import profile

from lstmopt.callbacks.amp import AMP
from lstmopt.callbacks.compiled_kernel import CompiledKernel
from lstmopt.kernels import lstm_cpu
from lstmopt.kernels.build import COMPILERS, library

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason=f"the kernel is compiled, and there is none of {COMPILERS}"
)


class Recorded(Foreign):
    """Keeps the operators of its steps."""

    def __init__(self):
        super().__init__()
        self.operators, self.losses = set(), []

    def training_step(self, batch, batch_idx):
        with profile() as recorded:
            loss = super().training_step(batch, batch_idx)
        self.operators |= {event.key for event in recorded.key_averages()}
        self.losses.append(loss.detach())
        return loss


@needs_compiler
def test_the_same_training_on_another_kernel(tmp_path):
    plain, _ = fit(tmp_path, module=Recorded())
    own, _ = fit(tmp_path, CompiledKernel(), module=Recorded())
    assert "lstmopt::lstm_layer" in own.operators and "aten::mkldnn_rnn_layer" not in own.operators
    assert "lstmopt::lstm_layer" not in plain.operators and len(own.losses) > 5
    torch.testing.assert_close(torch.stack(own.losses), torch.stack(plain.losses), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(dict(own.state_dict()), dict(plain.state_dict()), rtol=1e-3, atol=1e-4)


class Wider(Recorded):
    """With more units than stay with torch's kernel in bfloat16."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 1)


@needs_compiler
@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="this CPU has no AMX")
def test_the_same_training_in_bfloat16(tmp_path):
    plain, _ = fit(tmp_path, AMP(), module=Wider())
    own, _ = fit(tmp_path, AMP(), CompiledKernel(), module=Wider())
    assert "lstmopt::lstm_layer_bf16" in own.operators and "aten::mkldnn_rnn_layer" not in own.operators
    assert "lstmopt::lstm_layer_bf16" not in plain.operators and own.dtypes == plain.dtypes == {torch.bfloat16}
    torch.testing.assert_close(torch.stack(own.losses), torch.stack(plain.losses), rtol=2e-2, atol=1e-4)


@needs_compiler
def test_the_module_is_given_back(tmp_path):
    module, _ = fit(tmp_path, CompiledKernel(), module=Foreign())
    assert type(module.lstm) is nn.LSTM and "compiled" not in vars(module.lstm)


@needs_compiler
def test_the_module_is_given_back_after_an_error(tmp_path):
    class Breaks(Foreign):
        def training_step(self, batch, batch_idx):
            raise ValueError("broken")

    module = Breaks()
    with pytest.raises(ValueError, match="broken"):
        fit(tmp_path, CompiledKernel(), module=module)
    assert type(module.lstm) is nn.LSTM and "compiled" not in vars(module.lstm)


@pytest.fixture
def _nothing_known():
    library.cache_clear(), lstm_cpu.check.cache_clear()
    yield
    library.cache_clear(), lstm_cpu.check.cache_clear()


@pytest.mark.usefixtures("_nothing_known")
def test_without_a_compiler_it_is_said_and_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    module, _ = fit(tmp_path, CompiledKernel(), module=Recorded())
    assert "compiled_kernel: no C++ compiler" in capsys.readouterr().out
    assert "aten::mkldnn_rnn_layer" in module.operators and len(module.losses) > 5


@needs_compiler
@pytest.mark.usefixtures("_nothing_known")
@pytest.mark.parametrize("wrong", ["output", "gradient"])
def test_a_kernel_that_computes_something_else_is_not_used(tmp_path, monkeypatch, capsys, wrong):
    right = lstm_cpu.run

    def off(x, state, weights):
        out, c = right(x, state, weights)
        return (1.01 * out if wrong == "output" else out + 0.01 * (out - out.detach())), c

    monkeypatch.setattr(lstm_cpu, "run", off)
    module, _ = fit(tmp_path, CompiledKernel(), module=Recorded())
    assert "compiled_kernel: what it computes on this CPU is not" in capsys.readouterr().out
    assert "aten::mkldnn_rnn_layer" in module.operators and "lstmopt::lstm_layer" not in module.operators
