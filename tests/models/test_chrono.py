"""Memories that the first weights have, beside a cell that is let run by hand."""

import pytest
import torch
from torch import nn

from lstmopt.models.chrono_lstm import ChronoLSTM


@pytest.mark.parametrize("bidirectional", [False, True])
def test_biases_are_those_of_the_paper(bidirectional):
    model = ChronoLSTM(3, 500, num_layers=2, bidirectional=bidirectional, longest=200)
    biases = {name: bias for name, bias in model.lstm.named_parameters() if name.startswith("bias")}
    assert len(biases) == (8 if bidirectional else 4)
    for name, bias in biases.items():
        i, f, *_ = bias.detach().chunk(4)
        if name.startswith("bias_hh"):
            assert not i.any() and not f.any()
        else:
            assert torch.equal(i, -f)
            memory = f.exp()
            assert memory.min() >= 1 and memory.max() <= 199
            assert abs(float(memory.mean()) - 100) < 12  # of uniform(1, 199), four standard errors


def test_a_cell_is_kept_as_long_as_its_bias_says():
    """With nothing to read, a cell falls as sigmoid(log u)^t = (u / (u + 1))^t."""
    model = ChronoLSTM(1, 8, longest=300)
    with torch.no_grad():
        for name, weight in model.lstm.named_parameters():
            if name.startswith("weight"):
                weight.zero_()
            else:
                weight[16:] = 0.0  # nothing is written: tanh(0) = 0
    memory = model.lstm.bias_ih_l0.detach()[8:16].exp()
    state = (torch.zeros(1, 1, 8), torch.ones(1, 1, 8))
    _, (_, cell) = model(torch.zeros(1, 50, 1), state=state)
    torch.testing.assert_close(cell[0, 0], (memory / (memory + 1)) ** 50, rtol=1e-4, atol=1e-6)


def test_computes_what_nn_lstm_does():
    model, plain = ChronoLSTM(3, 8, num_layers=2), nn.LSTM(3, 8, 2, batch_first=True)
    plain.load_state_dict(model.lstm.state_dict())
    x = torch.randn(4, 9, 3)
    torch.testing.assert_close(model(x)[0], plain(x)[0])
