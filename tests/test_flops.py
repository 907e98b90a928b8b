"""Counted operations against the formula, the formula against torch's own count of the native path."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from lstmopt.flops import FlopCount, lstm_flops, samples

SHAPES = [(4, 7, 3, 5), (1, 1, 1, 1), (16, 50, 7, 64), (3, 20, 12, 8)]
KINDS = [
    {"num_layers": 1},
    {"num_layers": 3},
    {"num_layers": 1, "bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
    {"num_layers": 2, "bias": False},
]


def by_hand(batch, steps, features, hidden, layers, directions):
    """Each gate, at each step: a row of W times x and a row of U times h."""
    total = 0
    for layer in range(layers):
        width = features if layer == 0 else directions * hidden
        for _ in range(directions * steps * batch):
            total += 4 * hidden * (2 * width + 2 * hidden)
    return total


def counted(lstm, x, state=None):
    with FlopCounterMode(display=False) as forward:
        out, _ = lstm(x, state)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_counter_equals_the_formula(shape, kind, input_grad, batch_first):
    batch, steps, features, hidden = shape
    lstm = nn.LSTM(features, hidden, batch_first=batch_first, **kind)
    x = torch.randn(*((batch, steps) if batch_first else (steps, batch)), features, requires_grad=input_grad)
    expected = lstm_flops(*shape, kind["num_layers"], kind.get("bidirectional", False))
    assert counted(lstm, x) == expected
    directions = 2 if kind.get("bidirectional") else 1
    assert expected.forward == by_hand(*shape, kind["num_layers"], directions)
    assert expected.total == 3 * expected.forward


def test_the_measured_number():
    assert lstm_flops(16, 20, 32, 48).total == 3 * 16 * 20 * 8 * 48 * (32 + 48)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_native_path_counts_the_same(kind):
    """torch's own formulas of mm and addmm; all gradients are asked for, as the fused kernels always have them."""
    batch, steps, features, hidden = 4, 7, 3, 5
    lstm = nn.LSTM(features, hidden, **kind)
    layers, directions = kind["num_layers"], 2 if kind.get("bidirectional") else 1
    x = torch.randn(steps, batch, features, requires_grad=True)
    state = tuple(torch.zeros(layers * directions, batch, hidden, requires_grad=True) for _ in range(2))
    with torch.backends.mkldnn.flags(enabled=False):
        native = counted(lstm, x, state)
        forward, backward = counted(lstm, x.detach())
    expected = lstm_flops(batch, steps, features, hidden, layers, directions == 2)
    assert native == expected
    # not asked for: the first layer's input, and each layer's first state
    input_gradient = directions * 2 * 4 * hidden * features * batch * steps
    state_gradient = layers * directions * 2 * 4 * hidden * hidden * batch
    assert (forward, backward) == (expected.forward, expected.backward - input_gradient - state_gradient)


def test_projections_and_packed_sequences_run_natively():
    lstm = nn.LSTM(3, 8, 2, proj_size=5)
    assert counted(lstm, torch.randn(7, 4, 3))[0] == lstm_flops(4, 7, 3, 8, 2, proj_size=5).forward
    packed = pack_sequence([torch.randn(n, 3) for n in (6, 4, 1)])
    with FlopCounterMode(display=False) as forward:
        nn.LSTM(3, 8)(packed)
    assert forward.get_total_flops() == lstm_flops(1, 11, 3, 8).forward


@pytest.mark.parametrize(("mask", "passes"), [((True, True, True, True), 2), ((True, False, False, False), 1)])
def test_formula_of_cudnn(mask, passes):
    """Two bidirectional layers with a projection, by the shapes that cuDNN's operator is given."""
    batch, steps, features, hidden, projected = 4, 7, 3, 8, 5
    weights = []
    for width in (features, features, 2 * projected, 2 * projected):
        weights += [torch.zeros(4 * hidden, width), torch.zeros(4 * hidden, projected)]
        weights += [torch.zeros(4 * hidden), torch.zeros(4 * hidden), torch.zeros(projected, hidden)]
    x = torch.zeros(steps, batch, features)
    expected = lstm_flops(batch, steps, features, hidden, 2, True, projected).forward
    assert flop_registry[torch.ops.aten._cudnn_rnn](x, weights, 5, None, x, None) == expected
    backward = flop_registry[torch.ops.aten._cudnn_rnn_backward](x, weights, 5, x, x, None, mask)
    assert backward == passes * expected


def test_count_without_hooks_equals_torchs_counter():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with FlopCounterMode(display=False) as theirs, FlopCount() as ours:
        model(torch.randn(5, 3)).sum().backward()
    assert ours.flops == theirs.get_total_flops() > 0


def test_samples_of_a_batch():
    assert samples({"x": [torch.zeros(()), torch.zeros(3, 2)]}) == 3
    assert samples("nothing") == 0
