"""Skip connections and segments, against the same things written out with nn.LSTM."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lstmopt.data.batch import Batch, DataSpec
from lstmopt.errors import ConfigError
from lstmopt.models.patch_lstm import PatchLSTM
from lstmopt.models.residual_lstm import ResidualLSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.classification import Classification
from lstmopt.tasks.forecasting import Forecasting


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_residual_by_hand():
    model = ResidualLSTM(3, 8, num_layers=3)
    x = torch.randn(4, 6, 3)
    first, second, third = model.layers
    y = first(x)[0]
    y = y + second(y)[0]
    y = y + third(y)[0]
    out, (h, _) = model(x)
    torch.testing.assert_close(out, y)
    torch.testing.assert_close(h[0, :, :], first(x)[1][0][0])


def test_one_residual_layer_is_an_lstm():
    model, lstm = ResidualLSTM(3, 8, num_layers=1), nn.LSTM(3, 8, batch_first=True)
    lstm.load_state_dict(model.layers[0].state_dict())
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(model(x), lstm(x))


def test_residual_dropout_spares_the_skip():
    model = ResidualLSTM(3, 8, num_layers=2, dropout=0.5)
    for parameter in model.layers[1].parameters():
        nn.init.zeros_(parameter)  # the second layer gives zero: what is left is the skip
    x = torch.randn(4, 6, 3)
    torch.testing.assert_close(model(x)[0], model.layers[0](x)[0])
    seen = []
    model.layers[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(x)
    assert float((seen[0] == 0).float().mean()) == pytest.approx(0.5, abs=0.2)
    model.eval()(x)
    assert not (seen[1] == 0).any()


@pytest.mark.parametrize("length", [12, 10])  # 10: two steps are put in front
def test_patch_by_hand(length):
    model = PatchLSTM(2, 8, num_layers=2, segment_length=4)
    x = torch.randn(3, length, 2)
    out, _ = model(x)
    assert out.shape == (3, 3, 2, 8)
    for b in range(3):
        for channel in range(2):
            series = x[b, :, channel]
            series = torch.cat((series[:1].repeat(12 - length), series))
            segments = torch.stack([series[4 * k : 4 * k + 4] for k in range(3)])
            steps = F.relu(segments @ model.embedding.weight.T + model.embedding.bias)
            expected, _ = model.lstm(steps[None])
            torch.testing.assert_close(out[b, :, channel], expected[0], atol=1e-6, rtol=1e-5)
    model.return_sequences = False
    torch.testing.assert_close(model(x)[0], out[:, -1])


def test_patch_drops_in_front_of_the_head():
    model = PatchLSTM(2, 8, segment_length=4, dropout=0.5, return_sequences=False)
    assert float((model(torch.randn(20, 8, 2))[0] == 0).float().mean()) == pytest.approx(0.5, abs=0.15)


def test_patch_refuses_unequal_lengths():
    with pytest.raises(ConfigError, match="one length"):
        PatchLSTM(2)(torch.randn(2, 8, 2), torch.tensor([8, 4]))


def module(spec, task=Forecasting, **options):
    return LSTMModule(task(spec, **options), PatchLSTM(spec.input_size, 8, segment_length=4), torch.optim.SGD)


@pytest.mark.parametrize("window_norm", ["scale", "last", "none"])
@pytest.mark.parametrize("return_sequences", [None, True])
def test_forecast_of_each_target_from_its_own_past(window_norm, return_sequences):
    spec = DataSpec("forecasting", 4, 2, input_length=12, horizon=3, target_index=[2, 0])
    forecaster = module(spec, window_norm=window_norm, highway=False).eval()
    forecaster.model.return_sequences = return_sequences or forecaster.model.return_sequences
    x = torch.randn(5, 12, 4) * 3 + 1
    got = forecaster(Batch(x, x))
    assert got.shape == (5, 3, 2)
    for place, column in enumerate(spec.target_index):
        past = x[..., column]
        level = past[:, -1:] if window_norm != "none" else torch.zeros(5, 1)
        scale = (past - level).square().mean(dim=1, keepdim=True).sqrt() if window_norm == "scale" else torch.ones(5, 1)
        segments = ((past - level) / scale).view(5, 3, 4)
        hidden = forecaster.model.lstm(F.relu(forecaster.model.embedding(segments)))[0][:, -1]
        expected = forecaster.task.head(hidden) * scale + level
        torch.testing.assert_close(got[..., place], expected, atol=1e-5, rtol=1e-5)
    changed = x.clone()
    changed[..., [1, 3]] = 0.0
    changed[..., 0] += 1.0
    torch.testing.assert_close(forecaster(Batch(changed, x))[..., 0], got[..., 0])


def test_only_forecasts_from_the_past_can_be_per_channel():
    with pytest.raises(ConfigError, match="by itself"):
        module(DataSpec("forecasting", 2, 1))
    with pytest.raises(ConfigError, match="by itself"):
        module(DataSpec("classification", 2, 3), Classification)
