"""Losses, metrics and baselines of the five tasks, against formulas written out in numpy."""

import math
import warnings

import numpy as np
import pytest
import torch

from lstmopt.data.batch import Batch, DataSpec
from lstmopt.data.splits import Sequences, Text, Windows
from lstmopt.errors import ConfigError
from lstmopt.models.lstm import LSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.classification import Classification
from lstmopt.tasks.forecasting import Forecasting
from lstmopt.tasks.language_modeling import LanguageModeling
from lstmopt.tasks.polyphonic import Polyphonic
from lstmopt.tasks.tagging import Tagging
from lstmopt.tasks.task import Task


def score(task: Task, out: torch.Tensor, batch: Batch) -> dict[str, float]:
    metrics = task.metrics()
    task.update(metrics, out, batch)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def forecasting(season=4, horizon=6, input_length=8, **options):
    spec = DataSpec("forecasting", 2, 1, input_length, horizon, season, [1], ["y"], mean=[10.0], std=[2.0], unit="m")
    return Forecasting(spec, **options)


def test_the_targets_are_columns_of_the_input_and_no_part_of_a_checkpoint():
    task, x = Forecasting(DataSpec("forecasting", 4, 2, 8, 6, 4, [3, 1])), torch.randn(5, 8, 4)
    task.make_head(3)
    past, level, scale = task.encode(Batch(x, x))[1]
    last = x[:, -1:]
    spread = (x - last).square().mean(dim=1, keepdim=True).sqrt()
    expected = torch.stack((((x - last) / spread)[..., 3], ((x - last) / spread)[..., 1]), dim=2)
    torch.testing.assert_close(past, expected)
    assert torch.equal(level, torch.stack((last[..., 3], last[..., 1]), dim=2)) and scale.shape == (5, 1, 2)
    assert set(task.state_dict()) == {"highway.weight", "highway.bias", "head.weight", "head.bias"}


def test_five_tasks_exist():
    names = {task.name for task in (*Task.__subclasses__(), *Classification.__subclasses__())}
    assert names == {"forecasting", "classification", "language_modeling", "tagging", "polyphonic"}


def test_a_task_refuses_other_data():
    with pytest.raises(ConfigError, match="task=tagging"):
        Tagging(DataSpec("forecasting", 1, 1))


def test_forecasting_metrics_in_both_scales():
    task = forecasting(loss="mae")
    out, y = torch.randn(5, 6, 1), torch.randn(5, 6, 1)
    got = score(task, out, Batch(torch.randn(5, 9, 2), y))
    difference = (out - y).numpy()
    assert got["mse"] == pytest.approx(np.mean(difference**2), rel=1e-5)
    assert got["mae"] == got["loss"] == pytest.approx(np.mean(np.abs(difference)), rel=1e-5)
    assert got["mse_raw"] == pytest.approx(np.mean((2 * difference) ** 2), rel=1e-5)
    assert got["mae_raw"] == pytest.approx(np.mean(np.abs(2 * difference)), rel=1e-5)


def test_seasonal_naive_with_and_without_drift():
    task = forecasting(season=4, horizon=6)
    trend = torch.arange(14.0)
    season = torch.tensor([0.0, 3.0, 1.0, -2.0])[torch.arange(14) % 4]
    series = torch.stack((torch.zeros(14), season + 0.5 * trend), dim=1)[None]
    batch = Batch(series[:, :8], series[:, 8:, 1:])
    plain, drift = (predict(batch) for predict in task.baselines(Windows(series[0], [range(1)], 8, 6, [1])).values())
    # by hand: the value 4 (or 8) steps before; the drift adds 4 * 0.5 per season, which is exact here
    expected = [float(series[0, 8 + h - 4 * (h // 4 + 1), 1]) for h in range(6)]
    assert plain[0, :, 0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(drift, batch.y)


def test_naive_where_the_window_is_shorter_than_a_season():
    """It is named for what it is, and one warning says so."""
    task = forecasting(season=24, horizon=3, input_length=3)
    x = torch.tensor([[[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]]])
    with pytest.warns(UserWarning) as said:
        found = task.baselines(Windows(x[0], [range(1)], 3, 0, [1]))
    text = "a season of 24 rows is longer than data.input_length=3: the baseline repeats the last value; "
    assert [str(one.message) for one in said] == [text + "type data.input_length=24"]
    assert list(found) == ["naive", "naive_drift"]
    plain, drift = (predict(Batch(x, torch.zeros(1, 3, 1))) for predict in found.values())
    assert plain.flatten().tolist() == [4.0, 4.0, 4.0]
    assert drift.flatten().tolist() == [5.5, 7.0, 8.5]


@pytest.mark.parametrize(
    ("season", "names"),
    [
        (1, ["naive", "naive_drift"]),
        (4, ["seasonal_naive", "seasonal_naive_drift"]),
        (7, ["seasonal_naive", "seasonal_naive_drift"]),
        (8, ["seasonal_naive", "naive_drift"]),  # a change per season needs a row before it
    ],
)
def test_a_baseline_is_called_seasonal_where_it_repeats_a_season(season, names):
    task, series = forecasting(season=season, horizon=6), torch.randn(14, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = task.baselines(Windows(series, [range(1)], 8, 6, [1]))
    assert list(found) == names
    repeated = [float(series[8 - season + h % season, 1]) for h in range(6)]
    out = next(iter(found.values()))(Batch(series[None, :8], series[None, 8:, 1:]))
    assert out[0, :, 0].tolist() == pytest.approx(repeated)


@pytest.mark.parametrize("window_norm", ["last", "scale", "none"])
@pytest.mark.parametrize("highway", [False, True])
def test_window_norm_and_highway_by_hand(window_norm, highway):
    task = forecasting(window_norm=window_norm, highway=highway)
    task.make_head(2)
    x = torch.randn(3, 8, 2) * 5 + 3
    seen, context = task.encode(Batch(x, x))
    a = x.numpy()
    level = 0 if window_norm == "none" else a[:, -1:]
    scale = np.sqrt(np.mean((a - level) ** 2, axis=1, keepdims=True)) if window_norm == "scale" else np.ones((3, 1, 2))
    np.testing.assert_allclose(seen.numpy(), (a - level) / scale, rtol=1e-4, atol=1e-5)
    hidden = torch.randn(3, 2)
    expected = task.head(hidden).detach().numpy()
    if highway:
        torch.nn.init.normal_(task.highway.weight)
        expected = expected + seen[..., 1].numpy() @ task.highway.weight.detach().numpy().T
    expected = expected * scale[:, 0, 1:] + (0 if window_norm == "none" else level[:, 0, 1:])
    got = task.decode(hidden, context)[..., 0].detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_a_constant_window_stays_finite():
    task = forecasting()
    task.make_head(2)
    x = torch.ones(1, 8, 2)
    seen, context = task.encode(Batch(x, x))
    assert task.decode(torch.zeros(1, 2), context).isfinite().all() and (seen == 0).all()


def test_forecasting_without_past_uses_the_mean():
    task = Forecasting(DataSpec("forecasting", 2, 1, season=0))
    y = torch.tensor([1.0, 2.0, 6.0])[:, None, None]
    ((name, predict),) = task.baselines(Sequences(torch.zeros(3, 4, 2), y)).items()
    assert name == "mean"
    assert predict(Batch(torch.zeros(2, 4, 2), y[:2])).flatten().tolist() == [3.0, 3.0]


def test_classification_metrics_and_majority():
    task = Classification(DataSpec("classification", 1, 3))
    y = torch.tensor([0, 2, 2, 1, 2, 0])
    out = torch.randn(6, 3)
    got = score(task, out, Batch(torch.zeros(6, 4, 1), y))
    p = out.softmax(-1).numpy()
    assert got["loss"] == pytest.approx(-np.mean(np.log(p[range(6), y.numpy()])), rel=1e-5)
    guess = p.argmax(-1)
    assert got["accuracy"] == pytest.approx(np.mean(guess == y.numpy()))
    f1 = [2 * np.sum((guess == k) & (y.numpy() == k)) / (np.sum(guess == k) + np.sum(y.numpy() == k)) for k in range(3)]
    assert got["f1"] == pytest.approx(np.mean(f1), rel=1e-5)
    (predict,) = task.baselines(Sequences(torch.zeros(6, 4, 1), y)).values()
    prior = predict(Batch(torch.zeros(2, 4, 1), y[:2]))
    torch.testing.assert_close(prior.exp(), torch.tensor([[2, 1, 3], [2, 1, 3]]) / 6, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2, 1, 3])])
def test_the_mean_of_all_valid_outputs(lengths):
    module = LSTMModule(Classification(DataSpec("classification", 2, 3), "mean"), LSTM(2, 6), torch.optim.Adam)
    x = torch.randn(4, 5, 2)
    logits = module(Batch(x, torch.zeros(4, dtype=torch.long), lengths))
    for row, steps in enumerate([5] * 4 if lengths is None else lengths.tolist()):
        one, _ = module.model(x[row : row + 1, :steps])
        by_hand = module.task.head(sum(one[0, step] for step in range(steps)) / steps)
        torch.testing.assert_close(logits[row], by_hand)


def test_tagging_does_not_count_padding():
    task = Tagging(DataSpec("tagging", 1, 3))
    y, out, lengths = torch.randint(3, (4, 5)), torch.randn(4, 5, 3), torch.tensor([5, 2, 1, 3])
    got = score(task, out, Batch(torch.zeros(4, 5, 1), y, lengths))
    p = out.log_softmax(-1).numpy()
    steps = [(b, t) for b in range(4) for t in range(int(lengths[b]))]
    assert got["loss"] == pytest.approx(-np.mean([p[b, t, y[b, t]] for b, t in steps]), rel=1e-5)
    assert got["accuracy"] == pytest.approx(np.mean([p[b, t].argmax() == int(y[b, t]) for b, t in steps]))
    assert float(task.loss(out, Batch(torch.zeros(4, 5, 1), y, lengths))) == pytest.approx(got["loss"], rel=1e-5)


def test_training_begins_at_the_prior():
    task = Classification(DataSpec("classification", 1, 3))
    task.make_head(4)
    part = Sequences(torch.zeros(6, 4, 1), torch.tensor([0, 2, 2, 1, 2, 0]))
    task.start_at_prior(part)
    torch.testing.assert_close(task.head(torch.zeros(1, 4)).softmax(-1), torch.tensor([[2, 1, 3]]) / 6)


def test_language_modeling_perplexity_and_unigram():
    task = LanguageModeling(DataSpec("language_modeling", 4, 4, class_names=list("abcd"), separator=""))
    tokens = torch.tensor([0, 1, 1, 2, 1, 3, 1])
    part = Text(tokens, 3)
    assert part.x.tolist() == [[0, 1, 1], [2, 1, 3]]
    assert part.y.tolist() == [[1, 1, 2], [1, 3, 1]]
    batch = part.batch(torch.arange(2))
    (predict,) = task.baselines(part).values()
    got = score(task, predict(batch), batch)
    share = np.array([1, 5, 2, 2]) / 10  # each count plus one
    expected = -np.mean(np.log(share[batch.y.flatten().numpy()]))
    assert got["loss"] == pytest.approx(expected, rel=1e-5)
    assert got["perplexity"] == pytest.approx(math.exp(expected), rel=1e-5)


def test_polyphonic_nll_per_frame():
    task = Polyphonic(DataSpec("polyphonic", 5, 5))
    y, out = (torch.rand(3, 6, 5) > 0.7).float(), torch.randn(3, 6, 5)
    lengths = torch.tensor([6, 4, 1])
    got = score(task, out, Batch(torch.zeros(3, 6, 5), y, lengths))
    p = out.double().sigmoid().numpy()
    frames = [
        -np.sum(np.log(np.where(y[b, t].numpy() == 1, p[b, t], 1 - p[b, t])))
        for b in range(3)
        for t in range(lengths[b])
    ]
    assert got["nll"] == got["loss"] == pytest.approx(np.mean(frames), rel=1e-5)


@pytest.mark.parametrize(
    ("task", "part"),
    [
        (forecasting(), Windows(torch.randn(40, 2), [range(20)], 8, 6, [1])),
        (Classification(DataSpec("classification", 1, 3)), Sequences(torch.zeros(9, 4, 1), torch.arange(9) % 3)),
        (
            Tagging(DataSpec("tagging", 1, 3)),
            Sequences(torch.zeros(9, 4, 1), torch.ones(9, 4).long(), torch.arange(9) % 4 + 1, per_step=True),
        ),
        (LanguageModeling(DataSpec("language_modeling", 2, 2, class_names=["$", "_"])), Text(torch.arange(30) % 2, 7)),
        (
            Polyphonic(DataSpec("polyphonic", 88, 88)),
            Sequences(torch.zeros(2, 9, 88), torch.ones(2, 9, 88), torch.tensor([9, 4]), per_step=True),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_pictures_are_drawn(task, part, tmp_path):
    predict = next(iter(task.baselines(part).values()))
    task.picture(predict, part).savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 5_000
