"""Activations computed again: values and gradients are those of the plain way."""

import copy

import pytest
import torch
from built import DATA, parts, text
from foreign import ByKeyword, Foreign, fit, sgd
from torch import nn

from lstmopt.callbacks.recompute import Recompute, loss_in_chunks, lstm_in_chunks
from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.errors import ConfigError
from lstmopt.models.padded_lstm import PaddedLSTM


@pytest.mark.parametrize("task", DATA)
@pytest.mark.parametrize("chunk", [5, 64])
def test_recomputed_gradients_are_the_plain_ones(task, chunk, tmp_path):
    overrides = DATA[task](tmp_path)
    module = parts(tmp_path, *overrides, "model.num_layers=2").module
    datamodule = parts(tmp_path, *overrides, "model.num_layers=2").datamodule
    batch = next(iter(datamodule.train_dataloader()))
    plain, recomputed = copy.deepcopy(module), module
    loss = plain.training_loss(batch)
    loss.backward()
    again = loss_in_chunks(recomputed, chunk, batch)
    again.backward()
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-7)
    expected, found = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (plain, recomputed))
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    assert all(p.grad.abs().max() > 0 for p in recomputed.parameters())


@pytest.mark.parametrize("make", [Foreign, ByKeyword])
def test_recompute_in_a_foreign_module_changes_no_number(make, tmp_path):
    plain, _ = fit(tmp_path, module=Foreign(sgd))
    module, _ = fit(tmp_path, Recompute(2), module=make(sgd))
    torch.testing.assert_close(list(module.parameters()), list(plain.parameters()), rtol=1e-6, atol=1e-7)
    assert "forward" not in vars(module.lstm)


def test_dropout_is_the_same_when_it_is_computed_again(tmp_path):
    """The gradient agrees with finite differences of the same random numbers."""
    overrides = text(tmp_path)
    module = parts(tmp_path, *overrides, "model.num_layers=2", "model.dropout=0.5").module.double()
    batch = next(iter(parts(tmp_path, *overrides).datamodule.train_dataloader()))

    def loss():
        torch.manual_seed(3)
        return loss_in_chunks(module, 5, batch)

    loss().backward()
    weight = module.model.lstm.weight_hh_l1
    with torch.no_grad():
        weight[0, 0] += 1e-5
        above = loss()
        weight[0, 0] -= 2e-5
        below = loss()
    assert weight.grad[0, 0].item() == pytest.approx(((above - below) / 2e-5).item(), rel=1e-4)


@pytest.mark.parametrize("batch_first", [False, True])
def test_chunks_of_padded_sequences_are_the_whole(batch_first):
    lstm, x = PaddedLSTM(3, 4, 2, batch_first=batch_first), torch.randn(9, 9, 3)
    lengths = torch.tensor([9, 1, 0, 4, 5, 8, 2, 9, 3])
    whole, state = lstm(x, None, lengths)
    out, after = lstm_in_chunks(lstm, lstm.forward, 4, x, None, lengths)
    torch.testing.assert_close((out, after), (whole, state))


class WithCells(Foreign):
    """Its recurrence is a loop over an LSTMCell."""

    def __init__(self):
        super().__init__(sgd)
        cell = nn.LSTMCell(1, 8)

        def run(x):
            state, outs = None, []
            for step in x.unbind(1):
                state = cell(step, state)
                outs.append(state[0])
            return torch.stack(outs, 1), state

        self.cell = cell
        del self.lstm
        self.lstm = run


class WithGRU(Foreign):
    """Its recurrence is a GRU."""

    def __init__(self):
        super().__init__(sgd)
        self.lstm = nn.GRU(1, 8, batch_first=True)


@pytest.mark.parametrize("make", [WithCells, WithGRU])
@pytest.mark.parametrize("callback", [Recompute, TBPTT])
def test_a_module_without_an_lstm_is_refused(callback, make, tmp_path):
    module, _ = fit(tmp_path, module=make())
    assert len(module.grads) == 10  # a module that trains
    with pytest.raises(ConfigError, match=f"{callback.__name__.lower()} needs an nn.LSTM, and this module has none"):
        fit(tmp_path, callback(), module=make())
