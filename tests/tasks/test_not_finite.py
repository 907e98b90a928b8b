"""Losses that are not finite, labels that do not exist, and windows that are flat."""

import pytest
import torch
from torch.nn import functional as F

from lstmopt.data.batch import Batch, DataSpec
from lstmopt.errors import ConfigError
from lstmopt.tasks.classification import IGNORE, Classification
from lstmopt.tasks.forecasting import Forecasting
from lstmopt.tasks.language_modeling import LanguageModeling
from lstmopt.tasks.polyphonic import Polyphonic
from lstmopt.tasks.tagging import Tagging

CASES = [
    (Classification(DataSpec("classification", 1, 3)), torch.tensor([0, 2]), (2, 3)),
    (Tagging(DataSpec("tagging", 1, 3)), torch.zeros(2, 4, dtype=torch.long), (2, 4, 3)),
    (Forecasting(DataSpec("forecasting", 2, 1, 8, 4, 0, [1])), torch.ones(2, 4, 1), (2, 4, 1)),
    (LanguageModeling(DataSpec("language_modeling", 5, 5)), torch.ones(2, 4, dtype=torch.long), (2, 4, 5)),
    (Polyphonic(DataSpec("polyphonic", 5, 5)), torch.ones(2, 4, 5), (2, 4, 5)),
]


@pytest.mark.parametrize(("task", "y", "shape"), CASES, ids=[task.name for task, _, _ in CASES])
def test_a_batch_of_nan_is_not_left_out_of_the_loss(task, y, shape):
    metrics, batch = task.metrics(), Batch(torch.zeros(2, 4, task.spec.input_size), y)
    task.update(metrics, torch.zeros(shape), batch)
    assert metrics["loss"].compute().isfinite()
    task.update(metrics, torch.full(shape, float("nan")), batch)
    assert metrics["loss"].compute().isnan()
    assert metrics.get("nll", metrics["loss"]).compute().isnan()


def test_a_batch_without_a_label_counts_for_nothing():
    task = Classification(DataSpec("classification", 1, 3))
    metrics, out, y = task.metrics(), torch.randn(4, 3), torch.tensor([0, IGNORE, 2, 1])
    for labels in (y, torch.full((4,), IGNORE)):
        task.update(metrics, out, Batch(torch.zeros(4, 2, 1), labels))
    torch.testing.assert_close(metrics["loss"].compute(), F.cross_entropy(out[y >= 0], y[y >= 0]))


def test_a_forecast_rises_out_of_a_flat_window():
    task = Forecasting(DataSpec("forecasting", 2, 1, 8, 4, 0, [1]), highway=False)
    task.make_head(3)
    x = torch.full((1, 8, 2), 5.0)
    x[:, :, 0] = torch.arange(8.0)  # the other column is not flat
    seen, context = task.encode(Batch(x, x))
    hidden = torch.randn(1, 3)
    torch.testing.assert_close(task.decode(hidden, context)[0, :, 0], 5 + task.head(hidden)[0])
    assert (seen[..., 1] == 0).all()
    torch.testing.assert_close(seen[0, :, 0].square().mean(), torch.tensor(1.0))


@pytest.mark.parametrize("window_norm", ["scale", "last"])
def test_a_window_of_one_row_is_not_taken_relative_to_itself(window_norm):
    spec = DataSpec("forecasting", 2, 1, 1, 4, 0, [1])
    with pytest.raises(ConfigError, match="data.input_length=1 is nothing"):
        Forecasting(spec, window_norm=window_norm)
    Forecasting(spec, window_norm="none")
