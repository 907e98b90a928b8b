"""The range test: its rates, the optimizers it drives, where it ends; on modules that are not lstmopt's."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lstmopt import compat
from lstmopt.conf_dir import conf_dir
from lstmopt.tune.lr_finder import find_lr
from lstmopt.tune.range_test import RangeTest
from lstmopt.tune.short_run import short_run

OPTIMIZERS = sorted(file.stem for file in Path(conf_dir(), "optimizer").glob("*.yaml"))
SMALL = ["data=mackey_glass", "data.length=400", "data.input_length=8", "data.horizon=2", "model.hidden_size=4"]


def composed(*overrides):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", [*SMALL, "loader=resident", *overrides])


class Quadratic(pl.LightningModule):
    """Half of curvature times the square of one weight, by plain gradient descent."""

    def __init__(self, curvature=1.0):
        super().__init__()
        self.weight, self.curvature = nn.Parameter(torch.ones(())), curvature
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(float(self.weight))
        return self.curvature * self.weight**2 / 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def fit(module, test, **options):
    trainer = pl.Trainer(
        max_epochs=-1,
        max_steps=test.steps,
        callbacks=[test],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(8, 1), batch_size=2))
    return trainer


def test_rates_grow_by_the_same_factor_and_are_used():
    module, test = Quadratic(), RangeTest(1e-3, 1e-1, 21)
    fit(module, test)
    expected = [1e-3 * 10 ** (k / 10) for k in range(21)]
    assert test.rates == pytest.approx(expected, rel=1e-9)
    weight = 1.0
    for rate, seen, loss in zip(expected, module.seen, test.losses, strict=True):
        assert seen == pytest.approx(weight, rel=1e-5)
        assert loss == pytest.approx(weight**2 / 2, rel=1e-5)
        weight *= 1 - rate


def test_it_ends_soon_after_the_rate_from_which_a_quadratic_diverges():
    curvature = 20.0  # gradient descent diverges above 2 / curvature = 0.1
    test = RangeTest(1e-4, 10.0, 200)
    fit(Quadratic(curvature), test)
    assert len(test.losses) < 200
    assert 0.1 < test.rates[-1] < 2.0


def test_it_ends_at_nan():
    class Planted(Quadratic):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * math.nan if self.trainer.global_step == 7 else loss

    test = RangeTest(1e-4, 1e-2, 50)
    fit(Planted(), test)
    assert len(test.losses) == 8 and math.isnan(test.losses[-1])


def test_accumulated_batches_are_one_step():
    module, test = Quadratic(), RangeTest(1e-3, 1e-1, 5)
    trainer = fit(module, test, accumulate_grad_batches=2)
    assert trainer.global_step == len(test.losses) == len(test.rates) == 5
    assert len(module.seen) == 10
    assert test.losses[0] == pytest.approx(0.5, rel=1e-6)  # the loss itself, not half of it


class Weights(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        self.found = torch.cat([parameter.detach().flatten() for parameter in pl_module.parameters()])


class Constant(RangeTest, Weights):
    """A range of one rate."""


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_rate_that_is_set_is_a_rate_that_is_typed(optimizer):
    """A range of a single rate trains to the bit as an optimizer that was made with it."""
    cfg = composed(f"optimizer={optimizer}", "tune.lr=true")
    if compat.problems(cfg):
        assert optimizer in ("prodigy", "lbfgs", "newton_cg", "natural_gradient")
        return
    rate = 1.5 * cfg.optimizer.lr
    test = Constant(rate, rate, 12, limit=None)
    short_run(cfg, test, 12, seed=3)
    typed = composed(f"optimizer={optimizer}", f"optimizer.lr={rate!r}")
    plain, other = Weights(), Weights()
    short_run(typed, plain, 12, seed=3)
    short_run(cfg, other, 12, seed=3)
    assert torch.equal(test.found, plain.found)
    assert not torch.equal(plain.found, other.found)


@pytest.mark.parametrize(("optimizer", "below"), [("schedule_free", 1), ("adam", 10)])
def test_an_average_of_the_weights_bears_the_rate_at_the_end_of_the_valley(optimizer, below):
    found = find_lr(composed(f"optimizer={optimizer}", "model.hidden_size=16"), seeds=1)
    assert found.lr == pytest.approx(found.valley.rates[found.valley.end] / below, rel=0.05)


def test_optimizers_are_found():
    assert len(OPTIMIZERS) >= 21


@pytest.mark.parametrize(
    "words",
    [
        ["callbacks.gradient_clip.max_norm=0.01"],
        pytest.param(["gradient_clip=none", "precision=bf16_mixed"], marks=pytest.mark.bf16),
        ["gradient_clip=none", "memory=accumulate"],
    ],
    ids=["clipping", "precision", "accumulation"],
)
def test_the_options_of_the_run_are_in_force(words):
    def weights(*overrides):
        test = Constant(1e-2, 1e-2, 6, limit=None)
        short_run(composed("optimizer=sgd", "model.hidden_size=16", *overrides), test, 6, seed=0)
        return test.found

    plain = weights("gradient_clip=none")
    assert torch.equal(plain, weights("gradient_clip=none"))
    assert not torch.equal(plain, weights(*words))


def test_schedules_loggers_and_checkpoints_take_no_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for words in ([], ["lr_scheduler=one_cycle", "profiler=pytorch", "trainer.max_epochs=2"]):
        test = Constant(1e-3, 1e-3, 5, limit=None)
        short_run(composed("optimizer=adam", *words), test, 5, seed=0)
        found.append(test.found)
    assert torch.equal(*found)
    assert not list(tmp_path.iterdir())
