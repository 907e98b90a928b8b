"""What is said about kernels at the start of training, in anybody's module."""

import warnings

import pytest
import torch
from foreign import Foreign, fit
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstmopt.callbacks.amp import AMP
from lstmopt.callbacks.kernel_report import KernelReport
from lstmopt.models.layer_norm_lstm import LayerNormLSTM


class Packs(nn.Module):
    """An LSTM that packs its input."""

    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(1, 8, batch_first=True)

    def forward(self, x):
        out, state = self.inner(pack_padded_sequence(x, torch.full((len(x),), 6), batch_first=True))
        return pad_packed_sequence(out, batch_first=True)[0], state


def told(folder, capsys, *callbacks, lstm=None, **options):
    module, report = Foreign(), KernelReport()
    module.lstm = lstm or module.lstm
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(folder, report, *callbacks, module=module, **options)
    assert not any(layer._forward_pre_hooks for layer in module.modules()), "no hook is left"
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("kernel of")]
    return report, lines, [str(w.message) for w in caught if "fused kernel" in str(w.message)]


def test_one_line_and_once(tmp_path, capsys):
    report, lines, warned = told(tmp_path, capsys)
    assert lines == ["kernel of lstm: oneDNN (float32 on a CPU)"] and not warned
    assert list(report.found) == ["lstm"]


@pytest.mark.bf16
def test_the_number_format_of_the_run(tmp_path, capsys):
    _, lines, _ = told(tmp_path, capsys, AMP("bf16-mixed"))
    assert lines == ["kernel of lstm: oneDNN (bfloat16 on a CPU)"]


@pytest.mark.parametrize(
    ("lstm", "words"),
    [
        (nn.LSTM(1, 8, batch_first=True, proj_size=8 - 1), "lstm: native, step by step (proj_size=7)"),
        (Packs(), "lstm.inner: native, step by step (packed sequences)"),
        (LayerNormLSTM(1, 8, num_layers=2), "lstm.layers.0, lstm.layers.1: Python loop (layer norm)"),
    ],
    ids=["projection", "packed", "loop"],
)
def test_losing_the_fused_kernel_is_a_warning(lstm, words, tmp_path, capsys):
    if isinstance(lstm, nn.LSTM):
        lstm = nn.Sequential(lstm, Widen())
    _, lines, warned = told(tmp_path, capsys, lstm=lstm)
    assert not lines
    (line,) = warned
    assert words.split(": ")[1] in line and words.split(":")[0].split(".")[0] in line


class Widen(nn.Module):
    """From the projected size back to what the head expects."""

    def forward(self, pair):
        out, state = pair
        return nn.functional.pad(out, (0, 1)), state


def test_a_broken_first_step_leaves_no_hook(tmp_path):
    module = Foreign()
    module.head = nn.Linear(3, 1)
    with pytest.raises(RuntimeError):
        fit(tmp_path, KernelReport(), module=module)
    assert not module.lstm._forward_pre_hooks
