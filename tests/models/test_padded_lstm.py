"""Padded sequences, against torch's own packed ones."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from lstmopt.flops import lstm_flops
from lstmopt.models.awd_lstm import AWDLSTM
from lstmopt.models.layer_norm_lstm import LayerNormLSTM
from lstmopt.models.lstm import LSTM
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.residual_lstm import ResidualLSTM
from lstmopt.models.weight_drop import drop_weight
from lstmopt.models.zoneout_lstm import ZoneoutLSTM

B, T, F, H = 6, 11, 3, 8
LENGTHS = torch.tensor([5, 11, 1, 8, 3, 8])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def state_for(lstm, given):
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    sizes = (lstm.proj_size or lstm.hidden_size, lstm.hidden_size)
    dtype = lstm.weight_ih_l0.dtype
    return [torch.randn(rows, B, size, dtype=dtype, requires_grad=True) for size in sizes] if given else None


def run_packed(lstm, x, state):
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    out, after = nn.LSTM.forward(lstm, packed, state and tuple(state))
    return pad_packed_sequence(out, batch_first=True, total_length=T)[0], *after


def results(run, lstm, x, state):
    """Outputs, last states and the gradients of everything, of a loss that sees all of them."""
    out = run(lstm, x, state)
    generator = torch.Generator().manual_seed(1)
    loss = sum((part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in out)
    return [*out, *torch.autograd.grad(loss, [x, *(state or []), *lstm.parameters()])]


def run_padded(lstm, x, state):
    out, after = lstm(x, state and tuple(state), LENGTHS)
    return out, *after


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("garbage", [0.0, 100.0])
@pytest.mark.parametrize("given", [False, True], ids=["zero state", "given state"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["float32", "float64", "proj_size", "no bias", "native"])
def test_all_that_packed_sequences_give(kind, layers, bidirectional, given, garbage):
    options = {"proj_size": {"proj_size": 5}, "no bias": {"bias": False}}.get(kind, {})
    dtype = torch.float64 if kind == "float64" else torch.float32
    lstm = PaddedLSTM(F, H, layers, batch_first=True, bidirectional=bidirectional, dtype=dtype, **options)
    x = torch.randn(B, T, F, dtype=dtype)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = garbage * torch.randn(T - length, F)
    x.requires_grad_()
    state = state_for(lstm, given)
    expected = results(run_packed, lstm, x, state)
    with torch.backends.mkldnn.flags(enabled=kind != "native"):
        got = results(run_padded, lstm, x, state)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.detach().abs().max()))
    assert not got[0][torch.arange(T) >= LENGTHS[:, None]].any(), "the output is zero in the padding"


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_sequence_of_no_steps_keeps_its_state(bidirectional):
    lstm = PaddedLSTM(F, H, 2, batch_first=True, bidirectional=bidirectional)
    h, c = state_for(lstm, True)
    out, (last_h, last_c) = lstm(torch.randn(B, T, F), (h, c), torch.tensor([0, 4, 0, T, 1, 0]))
    none = [0, 2, 5]
    assert torch.equal(last_h[:, none], h[:, none]) and torch.equal(last_c[:, none], c[:, none])
    assert not out[none].any()


def test_state_over_pieces_equals_the_whole():
    lstm, x = PaddedLSTM(F, H, 2, batch_first=True), torch.randn(B, T, F)
    _, whole = lstm(x, None, LENGTHS)
    state = None
    for start in range(0, T, 4):
        piece = x[:, start : start + 4]
        _, state = lstm(piece, state, (LENGTHS - start).clamp(0, piece.shape[1]))
    torch.testing.assert_close(state, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_time_first(bidirectional):
    lstm = PaddedLSTM(F, H, 2, bidirectional=bidirectional)
    other = PaddedLSTM(F, H, 2, bidirectional=bidirectional, batch_first=True)
    other.load_state_dict(lstm.state_dict())
    x = torch.randn(B, T, F)
    out, state = lstm(x.transpose(0, 1), None, LENGTHS)
    expected, after = other(x, None, LENGTHS)
    assert torch.equal(out.transpose(0, 1), expected)
    torch.testing.assert_close(state, after, rtol=0, atol=0)


def test_full_lengths_are_the_plain_call():
    lstm, x = PaddedLSTM(F, H, 2, batch_first=True, dropout=0.5), torch.randn(B, T, F)
    torch.manual_seed(3)
    expected, _ = nn.LSTM.forward(lstm, x)
    torch.manual_seed(3)
    assert torch.equal(lstm(x, None, torch.full((B,), T))[0], expected)


def test_dropout_between_layers_is_that_of_the_plain_call():
    """A sequence of all T steps meets the same masks with and without shorter ones beside it."""
    lstm, x = PaddedLSTM(F, H, 3, batch_first=True, dropout=0.5), torch.randn(B, T, F)
    torch.manual_seed(3)
    expected, _ = lstm(x)
    torch.manual_seed(3)
    got, _ = lstm(x, None, LENGTHS)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-5, atol=1e-6)
    lstm.eval()
    torch.testing.assert_close(lstm(x, None, LENGTHS)[0][1], lstm(x)[0][1], rtol=1e-5, atol=1e-6)


@pytest.mark.bf16
@pytest.mark.parametrize("bidirectional", [False, True])
def test_bf16_autocast_stays_fused_and_close(bidirectional):
    lstm, x = PaddedLSTM(F, H, 2, batch_first=True, bidirectional=bidirectional), torch.randn(B, T, F)
    expected, (h, c) = lstm(x, None, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16), profile() as recorded:
        out, (low_h, low_c) = lstm(x, None, LENGTHS)
        out.float().sum().backward()
    assert {"aten::mkldnn_rnn_layer", "aten::mkldnn_rnn_layer_backward"} <= {e.key for e in recorded.key_averages()}
    assert out.dtype == low_h.dtype == torch.bfloat16
    for low, full in ((out, expected), (low_h, h), (low_c, c)):
        torch.testing.assert_close(low.float(), full, rtol=0.05, atol=0.02)


def test_float16_holds_the_gates_sums():
    lstm, x = PaddedLSTM(F, H, batch_first=True), torch.randn(B, T, F)
    expected, _ = lstm(x, None, LENGTHS)
    torch.testing.assert_close(lstm.half()(x.half(), None, LENGTHS)[0].float(), expected, rtol=0.05, atol=0.01)


def test_weight_drop_in_training_and_after():
    plain = PaddedLSTM(F, H, batch_first=True)
    dropped, x = copy.deepcopy(plain), torch.randn(B, T, F)
    drop_weight(dropped, 0.5)
    out, _ = dropped(x, None, LENGTHS)
    out.sum().backward()
    share = (dropped.parametrizations.weight_hh_l0.original.grad == 0).float().mean()
    assert 0.3 < share < 0.7
    copy.deepcopy(dropped)
    assert torch.equal(dropped.eval()(x, None, LENGTHS)[0], plain(x, None, LENGTHS)[0])


@pytest.mark.parametrize("cls", [LSTM, AWDLSTM, ResidualLSTM, LayerNormLSTM, ZoneoutLSTM])
@pytest.mark.parametrize("given", [False, True], ids=["zero state", "given state"])
def test_states_of_every_model_are_those_of_each_sequence_alone(cls, given):
    model, x = cls(F, H, num_layers=2).eval(), torch.randn(B, T, F)
    state = (torch.randn(2, B, H), torch.randn(2, B, H)) if given else None
    _, (h, c) = model(x, LENGTHS, state)
    for row, length in enumerate(LENGTHS):
        own = None if state is None else tuple(part[:, row : row + 1] for part in state)
        _, (own_h, own_c) = model(x[row : row + 1, :length], None, own)
        torch.testing.assert_close(h[:, row], own_h[:, 0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(c[:, row], own_c[:, 0], rtol=1e-5, atol=1e-6)
    kept = [torch.randn(2, B, H), torch.randn(2, B, H)]
    for after, before in zip(model(x, LENGTHS * 0, kept)[1], kept, strict=True):
        assert torch.equal(after, before)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_operations_are_those_of_one_feature_more(layers, bidirectional):
    lstm = PaddedLSTM(F, H, layers, batch_first=True, bidirectional=bidirectional)
    expected = lstm_flops(B, T, F, H, layers, bidirectional, unequal_lengths=True)
    with FlopCounterMode(display=False) as forward:
        out, _ = lstm(torch.randn(B, T, F), None, LENGTHS)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert (forward.get_total_flops(), backward.get_total_flops()) == expected


def test_second_derivatives():
    lstm, x = PaddedLSTM(F, H, batch_first=True, bidirectional=True).double(), torch.randn(B, T, F).double()
    vectors = [torch.randn_like(p) for p in lstm.parameters()]

    def product(run):
        gradient = torch.autograd.grad(run(lstm, x, None)[0].square().sum(), [*lstm.parameters()], create_graph=True)
        inner = sum((g * v).sum() for g, v in zip(gradient, vectors, strict=True))
        return torch.autograd.grad(inner, [*lstm.parameters()])

    for one, other in zip(product(run_padded), product(run_packed), strict=True):
        torch.testing.assert_close(one, other)


def test_no_warning_on_a_cpu():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PaddedLSTM(F, H, 2, batch_first=True, bidirectional=True)(torch.randn(B, T, F), None, LENGTHS)[
            0
        ].sum().backward()
