"""The compiled LSTM kernel, against torch's in float64."""

import shutil
import warnings

import pytest
import torch
from torch import nn
from torch.profiler import profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lstmopt.flops import lstm_flops
from lstmopt.kernels import lstm_cpu
from lstmopt.kernels.build import COMPILERS, library
from lstmopt.models.kernel import kernel
from lstmopt.models.padded_lstm import CLOSED, PaddedLSTM

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason=f"the kernel is compiled, and there is none of {COMPILERS}"
)
# (batch, steps, inputs, hidden): every remainder of rows by 3, 4 and 5, hidden sizes off and on the width of a vector
SHAPES = [
    (1, 1, 1, 1), (2, 3, 1, 5), (3, 4, 2, 8), (4, 2, 9, 16), (5, 7, 3, 24), (7, 5, 33, 40), (13, 3, 5, 64),
    (8, 2, 64, 130),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_seed_and_the_threads_as_before():
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def everything(run, x, state, lstm, of_c=True):
    """The output, the last c and the gradients of all that went in, of a loss that sees both (or the output alone)."""
    out, c = run(x, state)
    generator = torch.Generator().manual_seed(1)
    weigh = lambda part: (part * torch.randn(part.shape, generator=generator).to(part.dtype)).sum()  # noqa: E731
    loss = weigh(out) + weigh(c) if of_c else weigh(out)
    return [out, c, *torch.autograd.grad(loss, [x, *state, *lstm.parameters()])]


def case(shape, directions=1, scale=1.0):
    batch, steps, inputs, hidden = shape
    lstm = nn.LSTM(inputs, hidden, bidirectional=directions == 2)
    for weight in lstm.parameters():
        weight.data *= scale
    given = (steps, batch, inputs), (directions, batch, hidden), (directions, batch, hidden)
    return lstm, *(torch.randn(size, requires_grad=True) for size in given)


def in_float64(lstm, x, h, c, **options):
    exact = nn.LSTM(lstm.input_size, lstm.hidden_size, bidirectional=lstm.bidirectional).double()
    exact.load_state_dict(lstm.state_dict())
    x, h, c = (part.detach().double().requires_grad_() for part in (x, h, c))

    def run(x, state):
        out, (_, last) = exact(x, state)
        return out, last

    return everything(run, x, (h, c), exact, **options)


def compiled(lstm, x, h, c, **options):
    return everything(lambda x, state: lstm_cpu.run(x, state, lstm.all_weights), x, (h, c), lstm, **options)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_outputs_and_gradients(shape, directions, threads, scale):
    torch.set_num_threads(threads)
    given = case(shape, directions, scale)
    for one, exact in zip(compiled(*given), in_float64(*given), strict=True):
        torch.testing.assert_close(one, exact.float(), rtol=1e-5, atol=2e-6 * max(1.0, float(exact.abs().max())))


@pytest.mark.parametrize(("lanes", "rows"), [(4, 4), (8, 3), (16, 5)], ids=["SSE or NEON", "AVX", "AVX-512"])
@pytest.mark.parametrize("shape", [(13, 4, 5, 48), (7, 3, 20, 50)], ids=str)
def test_vectors_of_other_cpus(shape, lanes, rows, monkeypatch):
    """The compiler makes them of what this CPU has."""
    built = library("lstm_cpu", f"-DLSTM_LANES={lanes}", f"-DLSTM_ROWS={rows}", "-Wno-psabi")
    assert built.lstm_lanes() == lanes
    monkeypatch.setattr(lstm_cpu, "library", lambda: built)
    given = case(shape, 2)
    for one, exact in zip(compiled(*given), in_float64(*given), strict=True):
        torch.testing.assert_close(one, exact.float(), rtol=1e-5, atol=2e-6 * max(1.0, float(exact.abs().max())))


def test_a_loss_of_the_output_alone():
    given = case((5, 7, 3, 24))
    for one, exact in zip(compiled(*given, of_c=False), in_float64(*given, of_c=False), strict=True):
        torch.testing.assert_close(one, exact.float(), rtol=1e-5, atol=2e-6)


def test_a_loss_of_the_last_cell_alone():
    lstm, x, h, c = case((5, 7, 3, 24))
    (got,) = torch.autograd.grad(lstm_cpu.run(x, (h, c), lstm.all_weights)[1].square().sum(), [lstm.weight_hh_l0])
    (expected,) = torch.autograd.grad(lstm(x, (h, c))[1][1].square().sum(), [lstm.weight_hh_l0])
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["batch first", "every second step", "time reversed in memory", "expanded gradient"])
def test_strides(form):
    lstm, x, h, c = case((6, 8, 3, 16))
    x = x.detach()
    x = {
        "batch first": x.transpose(0, 1).contiguous().transpose(0, 1),
        "every second step": torch.randn(16, 6, 3)[::2],
        "time reversed in memory": torch.randn(3, 8, 6).permute(1, 2, 0),
        "expanded gradient": x,
    }[form]
    expected = torch.autograd.grad(lstm(x, (h, c))[0].sum(), list(lstm.parameters()))
    got = torch.autograd.grad(lstm_cpu.run(x, (h, c), lstm.all_weights)[0].sum(), list(lstm.parameters()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def test_a_sequence_is_computed_alike_whatever_is_beside_it_and_with_any_threads():
    lstm, x, h, c = case((13, 9, 3, 24))
    torch.set_num_threads(1)
    whole = compiled(lstm, x, h, c)
    torch.set_num_threads(2)
    for one, other in zip(compiled(lstm, x, h, c)[:5], whole[:5], strict=True):
        assert torch.equal(one, other)
    alone, last = lstm_cpu.run(x[:, 4:5], (h[:, 4:5], c[:, 4:5]), lstm.all_weights)
    assert torch.equal(alone, whole[0][:, 4:5]) and torch.equal(last, whole[1][:, 4:5])


def test_the_same_twice():
    given = case((13, 9, 3, 24), 2)
    assert all(map(torch.equal, compiled(*given), compiled(*given)))


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-4, 0.3, 1.0, 5.0, 8.9, 20.0, 80.0, 100.0, CLOSED])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gates_over_their_whole_range(value, sign):
    """One unit, one step, weights 1: the output is sigmoid(x) tanh(sigmoid(x) tanh(x)), and c is sigmoid(x) + that."""
    lstm = nn.LSTM(1, 1)
    lstm.weight_ih_l0.data.fill_(1.0), lstm.weight_hh_l0.data.zero_()
    lstm.bias_ih_l0.data.zero_(), lstm.bias_hh_l0.data.zero_()
    x = torch.full((1, 1, 1), sign * value)
    exact, other = x.double().sigmoid(), x.double().tanh()
    cell = exact * 0.5 + exact * other
    out, c = lstm_cpu.run(x, (torch.zeros(1, 1, 1), torch.full((1, 1, 1), 0.5)), lstm.all_weights)
    torch.testing.assert_close(c.double(), cell, rtol=5e-7, atol=1e-38)
    torch.testing.assert_close(out.double(), exact * cell.tanh(), rtol=8e-7, atol=1e-38)
    if value == CLOSED:
        assert c.item() == (1.5 if sign > 0 else 0.0)


def test_what_is_not_finite_is_seen():
    lstm, x, h, c = case((5, 4, 3, 16))
    with torch.no_grad():
        x[1, 2] = float("nan")
        out, last = lstm_cpu.run(x, (h, c), lstm.all_weights)
        assert out[1:, 2].isnan().all() and last[:, 2].isnan().all() and out[:, [0, 1, 3, 4]].isfinite().all()
        x[1, 2] = float("inf")
        assert lstm_cpu.run(x, (h, c), lstm.all_weights)[0][:, [0, 1, 3, 4]].isfinite().all()


def test_frozen_weights_and_no_gradient_at_all():
    lstm, x, h, c = case((5, 4, 3, 16))
    lstm.weight_hh_l0.requires_grad_(False)
    out, _ = lstm_cpu.run(x.detach(), (h.detach(), c.detach()), lstm.all_weights)
    out.sum().backward()
    assert lstm.weight_hh_l0.grad is None and lstm.weight_ih_l0.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.equal(lstm_cpu.run(x, (h, c), lstm.all_weights)[0], out)


class Kept(TorchDispatchMode):
    """Of each call of the kernel, whether it was told to keep its gates, and how many numbers it kept."""

    def __init__(self, operator=torch.ops.lstmopt.lstm_layer.default):
        super().__init__()
        self.operator, self.found = operator, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is self.operator:
            self.found.append((args[-1], out[2].numel()))
        return out


@pytest.mark.parametrize("hidden", [16, 5])
def test_gates_are_kept_for_a_gradient_alone(hidden):
    lstm, x, h, c = case((5, 4, 3, hidden))
    lanes = library("lstm_cpu").lstm_lanes()
    gates = 4 * 5 * 4 * -(-hidden // lanes) * lanes
    for context, frozen, expected in [
        (torch.enable_grad, False, (True, gates)),
        (torch.no_grad, False, (False, 0)),
        (torch.inference_mode, False, (False, 0)),
        (torch.enable_grad, True, (False, 0)),
    ]:
        for tensor in (x, h, c, *lstm.parameters()):
            tensor.requires_grad_(not frozen)
        with context(), Kept() as spy:
            out, _ = lstm_cpu.run(x, (h, c), lstm.all_weights)
        assert spy.found == [expected] and out.requires_grad == expected[0]


def test_second_derivatives_are_refused():
    lstm, x, h, c = case((5, 4, 3, 16))
    (first,) = torch.autograd.grad(lstm_cpu.run(x, (h, c), lstm.all_weights)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def switched_on(*args, **options):
    lstm = PaddedLSTM(*args, **options)
    lstm.compiled = True
    return lstm


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("lengths", [None, [5, 11, 1, 8, 3, 8]])
def test_layers_are_those_of_the_library(layers, bidirectional, lengths):
    options = {"num_layers": layers, "batch_first": True, "bidirectional": bidirectional, "dropout": 0.5 * (layers > 1)}
    plain = PaddedLSTM(3, 8, **options)
    own = switched_on(3, 8, **options)
    own.load_state_dict(plain.state_dict())
    x = torch.randn(6, 11, 3)
    lengths = lengths and torch.tensor(lengths)
    found = []
    for lstm in (plain, own):
        torch.manual_seed(5)
        with profile() as recorded:
            out, (h, c) = lstm(x, None, lengths)
            grads = torch.autograd.grad(out.square().sum() + h.sum() + (c**3).sum(), list(lstm.parameters()))
        names = {event.key for event in recorded.key_averages()}
        assert ("lstmopt::lstm_layer" in names, "aten::mkldnn_rnn_layer" in names) == (lstm is own, lstm is plain)
        found.append([out, h, c, *grads])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, float(other.abs().max())))
    if lengths is not None:
        assert not found[1][0][torch.arange(11) >= lengths[:, None]].any(), "the output is zero in the padding"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: (switched_on(8, 16, 2), torch.randn(5, 4, 8)), "compiled for this CPU"),
        (lambda: (switched_on(8, 200), torch.randn(5, 4, 8)), "compiled for this CPU"),
        (lambda: (switched_on(8, 200, 2), torch.randn(5, 4, 8)), "compiled for this CPU and oneDNN"),
        (lambda: (switched_on(250, 16, 2), torch.randn(5, 4, 250)), "compiled for this CPU and oneDNN"),
        (lambda: (switched_on(8, 300), torch.randn(5, 4, 8)), "oneDNN"),
        (lambda: (switched_on(8, 16, bias=False), torch.randn(5, 4, 8)), "oneDNN"),
        (lambda: (switched_on(8, 16).double(), torch.randn(5, 4, 8).double()), "native, step by step"),
        (lambda: (PaddedLSTM(8, 16), torch.randn(5, 4, 8)), "oneDNN"),
    ],
)
def test_the_kernel_that_is_told_is_the_one_that_runs(make, name):
    lstm, x = make()
    assert kernel(lstm, x).name == name
    with profile() as recorded:
        lstm(x)
    names = {event.key for event in recorded.key_averages()}
    assert ("lstmopt::lstm_layer" in names) == name.startswith("compiled")
    assert ("aten::mkldnn_rnn_layer" in names) == name.endswith("oneDNN")


@pytest.mark.parametrize("input_grad", [False, True])
def test_operations_are_counted(input_grad):
    lstm, x = switched_on(3, 16, 2), torch.randn(7, 4, 3, requires_grad=input_grad)
    with FlopCounterMode(display=False) as forward:
        out, _ = lstm(x)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    expected = lstm_flops(4, 7, 3, 16, 2)
    spared = 0 if input_grad else 2 * 4 * 16 * 3 * 4 * 7  # the gradient of the input, which is not asked for
    assert (forward.get_total_flops(), backward.get_total_flops()) == (expected.forward, expected.backward - spared)


def test_the_comparison_with_torch_says_nothing():
    lstm_cpu.check.cache_clear()
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lstm_cpu.check()
    finally:
        torch.set_warn_always(False)
