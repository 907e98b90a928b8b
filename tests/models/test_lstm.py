"""nn.LSTM and what we build on it, against the readable reference and against sequences run one by one."""

import pytest
import torch
from torch import nn

from lstmopt.models.lstm import LSTM
from lstmopt.models.reference import ReferenceLSTM

LENGTHS = torch.tensor([7, 3, 1, 5])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_fused_kernel_equals_the_equations(layers, bidirectional):
    lstm = nn.LSTM(5, 8, layers, batch_first=True, bidirectional=bidirectional)
    directions = [False, True] if bidirectional else [False]
    stack = [[ReferenceLSTM(lstm, k, reverse) for reverse in directions] for k in range(layers)]
    x = torch.randn(4, 7, 5, requires_grad=True)
    weight = torch.randn(4, 7, 8 * len(directions))

    out, _ = lstm(x)
    (out * weight).sum().backward()
    x_gradient, x.grad = x.grad, None

    expected = x
    for layer in stack:
        expected = torch.cat([cell(expected) for cell in layer], dim=2)
    (expected * weight).sum().backward()

    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(x_gradient, x.grad, atol=1e-6, rtol=1e-5)
    for k, layer in enumerate(stack):
        for cell in layer:
            suffix = f"l{k}" + ("_reverse" if cell.reverse else "")
            for name, parameter in cell.named_parameters():
                gradient = getattr(lstm, f"{name}_{suffix}").grad
                torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_unequal_lengths_equal_each_sequence_alone(bidirectional, return_sequences, layers):
    model = LSTM(3, 6, layers, bidirectional=bidirectional, return_sequences=return_sequences)
    x = torch.randn(4, 7, 3)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = 99.0  # what stands in the padding must not matter
    out, _ = model(x, LENGTHS)
    for row, length in enumerate(LENGTHS):
        alone, _ = model(x[row : row + 1, :length])
        got = out[row, :length] if return_sequences else out[row]
        torch.testing.assert_close(got, alone[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_last_step_is_the_final_state(bidirectional, lengths):
    model = LSTM(3, 6, bidirectional=bidirectional, return_sequences=False)
    x = torch.randn(4, 7, 3)
    out, (h, _) = model(x, lengths)
    if lengths is None or bidirectional:
        torch.testing.assert_close(out, torch.cat(tuple(h), dim=1))
    kept = LSTM(3, 6, bidirectional=bidirectional, return_sequences=True)
    kept.load_state_dict(model.state_dict())
    torch.testing.assert_close(kept.last(kept(x, lengths)[0], lengths), out)


def test_initialisation_options():
    model = LSTM(3, 6, 2, bidirectional=True, forget_bias=1.0, orthogonal=True)
    for name, parameter in model.lstm.named_parameters():
        if name.startswith("weight_hh"):
            for gate in parameter.chunk(4):
                torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=1e-5)
        if name.startswith("bias"):
            assert (parameter.chunk(4)[1] == (1.0 if "_ih" in name else 0.0)).all()
            assert not (parameter.chunk(4)[0] == 1.0).any()


def test_state_carries_on():
    model = LSTM(3, 6, 2)
    x = torch.randn(4, 8, 3)
    whole, _ = model(x)
    first, state = model(x[:, :5])
    second, _ = model(x[:, 5:], state=state)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, atol=1e-6, rtol=1e-5)
