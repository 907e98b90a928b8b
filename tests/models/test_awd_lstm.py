"""Weight drop and locked dropout, against nn.LSTM and against their definitions."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.profiler import profile

from lstmopt.errors import ConfigError
from lstmopt.models.awd_lstm import AWDLSTM
from lstmopt.models.locked_dropout import LockedDropout
from lstmopt.models.weight_drop import WeightDrop, drop_weight

OFF = {"weight_dropout": 0.0, "input_dropout": 0.0, "hidden_dropout": 0.0, "output_dropout": 0.0}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def dropped(p=0.5):
    """An nn.LSTM with weight drop, and one without that has the same weights."""
    plain, lstm = nn.LSTM(3, 16, batch_first=True), nn.LSTM(3, 16, batch_first=True)
    lstm.load_state_dict(plain.state_dict())
    drop_weight(lstm, p)
    return lstm, plain


def test_locked_dropout_has_one_mask_per_sequence_and_feature():
    out = LockedDropout(0.3)(torch.ones(50, 7, 40))
    assert (out == out[:, :1]).all(), "constant in time"
    assert len({tuple(row) for row in out[:, 0].tolist()}) == 50, "another mask for each sequence"
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.04)  # 2000 draws: 4 standard deviations


def test_locked_dropout_keeps_the_expectation_and_is_off_in_evaluation():
    dropout, x = LockedDropout(0.3), torch.randn(1, 3, 4)
    mean = dropout(x.expand(40_000, 3, 4)).mean(dim=0)
    torch.testing.assert_close(mean, x[0], atol=0.03, rtol=0)
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("wrong", [-0.1, 1.0])
def test_probabilities_out_of_range_are_refused(wrong):
    for make in (LockedDropout, WeightDrop, lambda p: AWDLSTM(3, weight_dropout=p)):
        with pytest.raises(ConfigError, match="out of range"):
            make(wrong)


def test_weight_drop_is_random_in_training_and_off_in_evaluation():
    lstm, plain = dropped()
    x = torch.randn(2, 5, 3)
    assert not torch.equal(lstm(x)[0], lstm(x)[0])
    lstm.eval()
    for _ in range(2):
        assert torch.equal(lstm(x)[0], plain(x)[0])
    lstm.train()
    assert not torch.equal(lstm(x)[0], plain(x)[0]), "and random again"


def test_one_mask_per_call_that_training_uses_and_gradients_see():
    model = AWDLSTM(3, 16, num_layers=1, **OFF | {"weight_dropout": 0.5})
    (lstm,) = model.layers
    drop = lstm.parametrizations.weight_hh_l0[0]
    masked = []
    drop.register_forward_hook(lambda module, args, out: masked.append(out.detach().clone()))
    x = torch.randn(4, 6, 3)
    for call in (1, 2):
        model.zero_grad()
        out, _ = model(x)
        (out * torch.randn_like(out)).sum().backward()
        assert len(masked) == call, "drawn once per call"
        by_hand = nn.LSTM(3, 16, batch_first=True)
        weights = {name: getattr(lstm, name).detach() for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0")}
        by_hand.load_state_dict(weights | {"weight_hh_l0": masked[-1]})
        torch.testing.assert_close(out, by_hand(x)[0])
        masked = masked[:call]
        gradient = lstm.parametrizations.weight_hh_l0.original.grad
        assert torch.equal(gradient == 0, masked[-1] == 0), "zero where dropped, and nowhere else"
    assert not torch.equal(masked[0], masked[1])
    raw = lstm.parametrizations.weight_hh_l0.original
    kept = masked[1] != 0
    torch.testing.assert_close(masked[1][kept], 2 * raw[kept])
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=0.07)


def test_training_follows_the_raw_weight():
    """The kernel computes with the weight as it is after an optimizer step, and not with an earlier one."""
    model = AWDLSTM(3, 8, num_layers=2, **OFF | {"weight_dropout": 0.3})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(4, 6, 3)
    for _ in range(3):
        optimizer.zero_grad()
        model(x)[0].square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(model.eval()(x)[0], chain(model, x))


def chain(model, x):
    """The layers' raw weights in plain nn.LSTMs, one after the other."""
    for layer in model.layers:
        plain = nn.LSTM(layer.input_size, layer.hidden_size, batch_first=True)
        state = layer.state_dict()
        state["weight_hh_l0"] = state.pop("parametrizations.weight_hh_l0.original")
        plain.load_state_dict(state)
        x, _ = plain(x)
    return x


def test_the_fused_kernel_is_kept():
    model = AWDLSTM(3, 16)
    with profile() as recorded:
        model(torch.randn(2, 5, 3))[0].sum().backward()
    names = [event.key for event in recorded.key_averages()]
    assert "aten::mkldnn_rnn_layer" in names and "aten::mkldnn_rnn_layer_backward" in names


def test_without_dropout_it_is_a_chain_of_lstms():
    model = AWDLSTM(3, 8, num_layers=3, **OFF)
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(model(x)[0], chain(model, x))


def test_where_dropout_acts():
    x = torch.ones(30, 6, 20)
    model = AWDLSTM(20, 8, num_layers=1, **OFF | {"output_dropout": 0.5})
    assert (model(x)[0] == 0).any(dim=1).float().mean() == pytest.approx(0.5, abs=0.15)
    for name, sees in {"input_dropout": 0, "hidden_dropout": 1}.items():
        model = AWDLSTM(20, 8, num_layers=2, **OFF | {name: 0.5})
        seen = []
        model.layers[sees].register_forward_pre_hook(lambda module, args, seen=seen: seen.append(args[0]))
        model(x)
        assert (seen[0] == 0).all(dim=1).float().mean() == pytest.approx(0.5, abs=0.15)


def test_state_dict_reloads_exactly_and_copies_work_after_a_training_step():
    model = AWDLSTM(3, 8)
    x = torch.randn(4, 6, 3)
    model(x)[0].sum().backward()
    copied = copy.deepcopy(model).eval()  # what averaging weights does
    fresh = AWDLSTM(3, 8)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(x)[0], model.eval()(x)[0])
    assert torch.equal(copied(x)[0], model(x)[0])
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in fresh.named_parameters()]


def test_calls_inside_of_cached_share_their_mask():
    lstm, plain = dropped()
    x = torch.randn(2, 5, 3)
    with parametrize.cached():
        first = lstm(x)[0]
        assert torch.equal(first, lstm(x)[0]) and not torch.equal(first, plain(x)[0])
    assert not torch.equal(lstm(x)[0], lstm(x)[0])
