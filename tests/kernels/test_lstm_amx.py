"""The compiled LSTM kernel in bfloat16, against torch's in float64."""

import shutil

import pytest
import torch
from test_lstm_cpu import Kept, case, everything, in_float64, switched_on
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from lstmopt.flops import lstm_flops
from lstmopt.kernels import lstm_amx
from lstmopt.kernels.build import COMPILERS, Unavailable, library
from lstmopt.models.kernel import kernel

CLOSE = 8e-3  # of the norm; bfloat16 rounds by up to 2^-9 = 2e-3, and torch's own kernel is up to 5e-3 off
# (batch, steps, inputs, hidden): batches off and on the rows of a tile, inputs odd, even and beyond a whole tile,
# hidden sizes off and on what the kernel takes, and steps beyond those whose gradients are added up together
SHAPES = [
    (1, 1, 1, 1), (1, 9, 2, 32), (3, 4, 5, 24), (16, 2, 32, 64), (17, 7, 33, 40), (37, 5, 1, 64), (40, 6, 70, 96),
]  # fmt: skip
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason=f"the kernel is compiled, and there is none of {COMPILERS}"
)
needs_amx = pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="this CPU has no AMX")
pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def _one_seed_and_the_threads_as_before():
    lstm_amx.here()  # compared with torch's kernel now, not within what a test records
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def compiled(lstm, x, h, c, **options):
    return everything(lambda x, state: lstm_amx.run(x, state, lstm.all_weights), x, (h, c), lstm, **options)


def assert_near(found, exact):
    for one, other in zip(found, exact, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other).norm().item() <= CLOSE * other.norm().item()


@needs_amx
def test_the_comparison_with_torch():
    lstm_amx.check.__wrapped__()


@needs_amx
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_outputs_and_gradients(shape, directions, threads):
    torch.set_num_threads(threads)
    given = case(shape, directions)
    assert_near(compiled(*given), in_float64(*given))


@needs_amx
def test_no_less_exact_than_torchs_kernel():
    lstm, x, h, c = case((64, 20, 64, 64))

    def torchs(x, state):
        with torch.autocast("cpu", torch.bfloat16):
            out, (_, last) = lstm(x, state)
        return out, last

    exact = in_float64(lstm, x, h, c)
    errors = [
        [((one.double() - other).norm() / other.norm()).item() for one, other in zip(found, exact, strict=True)]
        for found in (compiled(lstm, x, h, c), everything(torchs, x, (h, c), lstm))
    ]
    assert sum(errors[0]) < sum(errors[1])


@needs_amx
@pytest.mark.parametrize("of_c", [False, True])
def test_a_loss_of_one_of_them(of_c):
    lstm, x, h, c = case((5, 7, 3, 24))
    loss = lambda out, c: c.square().sum() if of_c else out[-1].float().square().sum()  # noqa: E731
    found = torch.autograd.grad(loss(*lstm_amx.run(x, (h, c), lstm.all_weights)), [x, h, c, *lstm.parameters()])
    out, (_, last) = lstm(x, (h, c))
    expected = torch.autograd.grad(loss(out, last), [x, h, c, *lstm.parameters()])
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm().item() <= 2 * CLOSE * other.norm().item()


@needs_amx
def test_an_expanded_gradient_and_any_layout():
    lstm, x, h, c = case((6, 8, 3, 32))
    expected = torch.autograd.grad(lstm(x, (h, c))[0].sum(), [x, *lstm.parameters()])
    for given in (x.transpose(0, 1).contiguous().transpose(0, 1), x.permute(2, 0, 1).contiguous().permute(1, 2, 0)):
        found = torch.autograd.grad(lstm_amx.run(given, (h, c), lstm.all_weights)[0].sum(), [x, *lstm.parameters()])
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm().item() <= CLOSE * other.norm().item()


@needs_amx
def test_a_sequence_is_computed_alike_whatever_is_beside_it_and_with_any_threads():
    lstm, x, h, c = case((37, 9, 3, 24))
    torch.set_num_threads(1)
    whole = compiled(lstm, x, h, c)
    torch.set_num_threads(2)
    for one, other in zip(compiled(lstm, x, h, c)[:5], whole[:5], strict=True):
        assert torch.equal(one, other)
    alone, last = lstm_amx.run(x[:, 20:21], (h[:, 20:21], c[:, 20:21]), lstm.all_weights)
    assert torch.equal(alone, whole[0][:, 20:21]) and torch.equal(last, whole[1][:, 20:21])


@needs_amx
@pytest.mark.parametrize("shape", [(1, 2, 1, 5), (19, 6, 33, 40)], ids=str)
def test_what_stands_in_fresh_memory_has_no_part_in_it(shape):
    given = case(shape)
    expected = compiled(*given)
    torch.use_deterministic_algorithms(True)  # fresh memory holds NaN then
    try:
        assert all(map(torch.equal, compiled(*given), expected))
    finally:
        torch.use_deterministic_algorithms(False)


@needs_amx
def test_what_is_not_finite_is_seen():
    lstm, x, h, c = case((20, 4, 3, 16))
    with torch.no_grad():
        x[1, 18] = float("nan")
        out, last = lstm_amx.run(x, (h, c), lstm.all_weights)
        others = [n for n in range(20) if n != 18]
        assert out[1:, 18].isnan().all() and last[:, 18].isnan().all() and out[:, others].isfinite().all()


@needs_amx
def test_frozen_weights_and_no_gradient_at_all():
    lstm, x, h, c = case((5, 4, 3, 16))
    lstm.weight_hh_l0.requires_grad_(False)
    out, _ = lstm_amx.run(x.detach(), (h.detach(), c.detach()), lstm.all_weights)
    out.sum().backward()
    assert lstm.weight_hh_l0.grad is None and lstm.weight_ih_l0.grad.abs().sum() > 0
    with torch.no_grad(), Kept(torch.ops.lstmopt.lstm_layer_bf16.default) as spy:
        assert torch.equal(lstm_amx.run(x, (h, c), lstm.all_weights)[0], out)
    assert spy.found == [(False, 0)]


@needs_amx
def test_second_derivatives_are_refused():
    lstm, x, h, c = case((5, 4, 3, 16))
    (first,) = torch.autograd.grad(lstm_amx.run(x, (h, c), lstm.all_weights)[0].square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@needs_amx
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [5, 11, 1, 8, 3, 8]])
def test_layers_and_lengths(bidirectional, lengths):
    """Two layers under autocast, against packed sequences in float64."""
    lstm = switched_on(3, 24, 2, batch_first=True, bidirectional=bidirectional)
    exact = nn.LSTM(3, 24, 2, batch_first=True, bidirectional=bidirectional).double()
    exact.load_state_dict(lstm.state_dict())
    x = torch.randn(6, 11, 3)
    lengths = lengths and torch.tensor(lengths)
    with torch.autocast("cpu", torch.bfloat16), profile() as recorded:
        assert kernel(lstm, x, lengths is not None).reason == "bfloat16, H=24"
        out, (h, c) = lstm(x, None, lengths)
    names = {event.key for event in recorded.key_averages()}
    assert "lstmopt::lstm_layer_bf16" in names and "aten::mkldnn_rnn_layer" not in names
    given = x.double() if lengths is None else pack_padded_sequence(x.double(), lengths, True, False)
    expected, states = exact(given)
    if lengths is not None:
        expected, _ = pad_packed_sequence(expected, True)
        assert not out[torch.arange(11) >= lengths[:, None]].any(), "the output is zero in the padding"
    found = [out, h, c, *torch.autograd.grad(out.float().square().sum() + c.sum(), list(lstm.parameters()))]
    grads = torch.autograd.grad(expected.square().sum() + states[1].sum(), list(exact.parameters()))
    for one, other in zip(found, [expected, *states, *grads], strict=True):
        assert (one.double() - other).norm().item() <= 2 * CLOSE * other.norm().item()


@needs_amx
def test_it_takes_bfloat16_alone():
    lstm, x = switched_on(8, 16), torch.randn(5, 4, 8)
    assert kernel(lstm, x).reason == "float32, H=16"
    assert lstm_amx.takes(lstm, x, torch.bfloat16) and not lstm_amx.takes(lstm, x, torch.float32)
    assert not lstm_amx.takes(lstm.to(torch.bfloat16), x, torch.bfloat16), "weights without digits to spare"


@needs_amx
@pytest.mark.parametrize("input_grad", [False, True])
def test_operations_are_counted(input_grad):
    lstm, x = switched_on(3, 32, 2), torch.randn(7, 4, 3, requires_grad=input_grad)
    with FlopCounterMode(display=False) as forward, torch.autocast("cpu", torch.bfloat16):
        out, _ = lstm(x)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    expected = lstm_flops(4, 7, 3, 32, 2)
    spared = 0 if input_grad else 2 * 4 * 32 * 3 * 4 * 7  # the gradient of the input, which is not asked for
    assert (forward.get_total_flops(), backward.get_total_flops()) == (expected.forward, expected.backward - spared)


def test_other_cpus_stay_with_torchs_kernel(monkeypatch):
    assert library("lstm_amx", "-U__AMX_TILE__").lstm_lanes() == 0
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    with pytest.raises(Unavailable, match="no AMX"):
        lstm_amx.check.__wrapped__()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(lstm_amx, "library", lambda: library("lstm_amx", "-U__AMX_TILE__"))
    with pytest.raises(Unavailable, match="may not use AMX"):
        lstm_amx.check.__wrapped__()
