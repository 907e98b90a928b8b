"""LSTMs that loop in Python, against their equations written out, step by step and number by number."""

import pytest
import torch
from torch import nn

from lstmopt.models.layer_norm_lstm import LayerNormLSTM
from lstmopt.models.loop_layer import LoopLayer
from lstmopt.models.zoneout_lstm import ZoneoutLSTM


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def norm(values, gain, shift=0.0):
    mean = values.mean(dim=1, keepdim=True)
    variance = (values - mean).square().mean(dim=1, keepdim=True)
    return (values - mean) / (variance + 1e-5).sqrt() * gain + shift


def layer_norm_by_hand(layer, x):
    h = c = torch.zeros(len(x), layer.hidden_size, dtype=x.dtype)
    outputs = []
    for t in range(x.shape[1]):
        of_input = norm(x[:, t] @ layer.weight_ih.T + layer.shift_ih, layer.gain_ih)
        i, f, g, o = (norm(h @ layer.weight_hh.T, layer.gain_hh) + of_input + layer.bias).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * norm(c, layer.gain_cell, layer.shift_cell).tanh()
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def zoneout_by_hand(layer, x, cell_zoneout, hidden_zoneout):
    """Zones may be numbers (evaluation) or functions of (t, shape) that give masks (training)."""
    zone = lambda p, t, like: p(t, like.shape) if callable(p) else p  # noqa: E731
    h = c = torch.zeros(len(x), layer.hidden_size, dtype=x.dtype)
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ layer.weight_ih.T + h @ layer.weight_hh.T + layer.bias).chunk(4, dim=1)
        new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        new_h = o.sigmoid() * new_c.tanh()
        z_h, z_c = zone(hidden_zoneout, t, h), zone(cell_zoneout, t, c)
        h = z_h * h + (1 - z_h) * new_h
        c = z_c * c + (1 - z_c) * new_c
        outputs.append(h)
    return torch.stack(outputs, dim=1)


def test_the_plain_loop_is_an_lstm():
    layer, lstm = LoopLayer(3, 8), nn.LSTM(3, 8, batch_first=True)
    lstm.load_state_dict(
        {
            "weight_ih_l0": layer.weight_ih,
            "weight_hh_l0": layer.weight_hh,
            "bias_ih_l0": layer.bias,
            "bias_hh_l0": torch.zeros(32),
        }
    )
    x, state = torch.randn(4, 7, 3), (torch.randn(1, 4, 8), torch.randn(1, 4, 8))
    torch.testing.assert_close(layer(x, state), lstm(x, state), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_layer_norm(layers):
    model = LayerNormLSTM(3, 8, num_layers=layers).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    expected = x
    for layer in model.layers:
        expected = layer_norm_by_hand(layer, expected)
    torch.testing.assert_close(model(x)[0], expected)


def test_layer_norm_sees_the_size_of_a_single_feature():
    model = LayerNormLSTM(1, 16)
    small, large = model(torch.full((1, 1, 1), 0.5))[0], model(torch.full((1, 1, 1), 2.0))[0]
    assert float((small - large).detach().abs().max()) > 0.01


def test_layer_norm_starts_from_the_usual_gains():
    layer = LayerNormLSTM(3, 8, forget_bias=1.0).layers[0]
    assert (layer.bias.chunk(4)[1] == 1).all() and not (layer.bias.chunk(4)[0] == 1).any()
    assert (layer.gain_ih == 1).all() and (layer.gain_cell == 1).all() and (layer.shift_cell == 0).all()


def test_zoneout_in_evaluation_is_the_expectation():
    model = ZoneoutLSTM(3, 8, cell_zoneout=0.3, hidden_zoneout=0.2).double().eval()
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    torch.testing.assert_close(model(x)[0], zoneout_by_hand(model.layers[0], x, 0.3, 0.2))


def test_zoneout_in_training_keeps_old_values(monkeypatch):
    drawn = {0.3: [], 0.2: []}
    draw = torch.Tensor.bernoulli_

    def recorded(tensor, p):
        drawn[p].append(draw(tensor, p).clone())
        return tensor

    monkeypatch.setattr(torch.Tensor, "bernoulli_", recorded)
    model = ZoneoutLSTM(3, 8, cell_zoneout=0.3, hidden_zoneout=0.2).double()
    x = torch.randn(40, 20, 3, dtype=torch.float64)
    out, _ = model(x)
    assert len(drawn[0.3]) == len(drawn[0.2]) == 20
    for p, masks in drawn.items():
        stacked = torch.stack(masks)
        assert set(stacked.unique().tolist()) == {0, 1}
        assert float(stacked.mean()) == pytest.approx(p, abs=0.03)
        assert not torch.equal(masks[0], masks[1]), "drawn at every step"
    expected = zoneout_by_hand(
        model.layers[0], x, lambda t, shape: drawn[0.3][t].view(shape), lambda t, shape: drawn[0.2][t].view(shape)
    )
    torch.testing.assert_close(out, expected)
    kept = torch.stack(drawn[0.2][1:], dim=1) == 1
    assert (out[:, 1:][kept] == out[:, :-1][kept]).all()


def test_without_zoneout_it_is_an_lstm():
    model, plain = ZoneoutLSTM(3, 8, cell_zoneout=0.0, hidden_zoneout=0.0), LoopLayer(3, 8)
    plain.load_state_dict(model.layers[0].state_dict())
    x = torch.randn(4, 7, 3)
    torch.testing.assert_close(model(x)[0], plain(x)[0])


@pytest.mark.parametrize("model", [LayerNormLSTM, ZoneoutLSTM])
def test_gradients_in_float64(model):
    model = model(2, 3, num_layers=2).double().eval()
    x = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    state = tuple(torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    names = [name for name, _ in model.named_parameters()]

    def run(x, h, c, *weights):
        out, (h, c) = torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (x, None, (h, c)))
        return out, h, c

    assert torch.autograd.gradcheck(run, (x, *state, *model.parameters()))


@pytest.mark.parametrize("model", [LayerNormLSTM, ZoneoutLSTM])
def test_under_autocast_the_cell_stays_in_float32(model):
    model = model(3, 16).eval()
    x = torch.randn(4, 30, 3)
    exact, _ = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        out, (h, c) = model(x)
    assert c.dtype == torch.float32
    torch.testing.assert_close(out.float(), exact, atol=0.03, rtol=0.03)
