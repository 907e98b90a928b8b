"""The batch size with which a config trains to a given validation loss in the least time."""

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf

from lstmopt.callbacks.threads import Threads
from lstmopt.errors import ConfigError
from lstmopt.tune.batch_size_finder import LEAST_BATCHES, VERIFIED, BatchSizeFinder, clear, is_out_of_memory
from lstmopt.tune.batch_size_search import doubled
from lstmopt.tune.loss_clock import METRIC, LossClock
from lstmopt.tune.short_run import KEPT, short_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = 0.25  # of an epoch lie between two validations
LIKE_THE_RUN = ("max_epochs", "max_time", "limit_train_batches", "limit_val_batches")


@dataclass(frozen=True)
class Curve:
    """A training with one batch size.

    Attributes:
        batch_size: the size.
        looks: (seconds, `val/loss`) of each validation; with `reached` the last one has the loss.
        reached: whether it came to the loss, and sooner than the sizes before it.
        given_up: it was ended because it took longer than that one.
        seconds: of its batches.
    """

    batch_size: int
    looks: list[tuple[float, float]]
    reached: bool
    given_up: bool
    seconds: float

    def __str__(self) -> str:
        how = "" if self.reached else " given up" if self.given_up else " not reached"
        return f"{self.batch_size}: {self.seconds:.2f} s{how}"


@dataclass(frozen=True)
class TimeToLoss:
    """What the trainings gave.

    Attributes:
        batch_size: the size with the least time.
        target: the loss.
        curves: the trainings, in the order of their sizes.
        failed: sizes that did not fit.
        seconds: that it took.
    """

    batch_size: int
    target: float
    curves: list[Curve]
    failed: list[int]
    seconds: float

    def __str__(self) -> str:
        curves = ", ".join(str(curve) for curve in self.curves)
        failed = f"; {min(self.failed)} does not fit" if self.failed else ""
        return f"{METRIC} of {self.target:g} with {curves}{failed}; {self.seconds:.1f} s"


def find_batch_size(cfg: DictConfig) -> TimeToLoss:
    """Train to `tune.batch_size_loss` with 8, 16, 32 ... sequences per batch, at least ten batches in an epoch.

    Each training is the run's own, from its weights and in its batch order, but without its schedule; the number of
    threads, which the run chooses in its first steps, is chosen before. It is validated four times in an epoch, so that
    all sizes are looked at after as many sequences. A size that takes longer than the best so far is given up. Every
    size has to pass some steps with the longest sequences before.

    Args:
        cfg: the composed config; it is not changed.

    Raises:
        ConfigError: not even one sequence fits, or no size comes to the loss.
        Interrupted: a signal came.
    """
    began, target = time.monotonic(), cfg.tune.batch_size_loss
    finder = BatchSizeFinder(cfg)
    most = finder.most(LEAST_BATCHES)
    curves: list[Curve] = []
    for size in doubled(lambda n: finder.attempt(n, longest=True, batches=VERIFIED), most):
        curve = _trained(cfg, finder, size, LossClock(target, _least(curves)))
        if curve is None:
            finder.failed.append(size)
            break
        curves.append(curve)
    reached = [curve for curve in curves if curve.reached]
    if not reached:
        raise _not_reached(cfg, curves)
    return TimeToLoss(reached[-1].batch_size, target, curves, sorted(finder.failed), time.monotonic() - began)


class _Choice(pl.Callback):
    """Ends a training when its number of threads is chosen."""

    count = 1

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        chosen = next(one.chosen for one in trainer.callbacks if isinstance(one, Threads))  # type: ignore[attr-defined]
        if chosen is not None:
            self.count, trainer.should_stop = chosen, True


def _least(curves: list[Curve]) -> float:
    return min((curve.seconds for curve in curves if curve.reached), default=math.inf)


def _trained(cfg: DictConfig, finder: BatchSizeFinder, batch_size: int, clock: LossClock) -> Curve | None:
    """None where memory ends."""
    assert finder.datamodule is not None
    own = copy.deepcopy(cfg)
    own.data.batch_size = finder.datamodule.batch_size = batch_size
    kept = KEPT | {"threads"}
    trainer: dict[str, Any] = {name: cfg.trainer[name] for name in LIKE_THE_RUN}
    trainer |= {"val_check_interval": LOOKS, "check_val_every_n_epoch": 1}
    clear()
    try:
        if OmegaConf.select(own, "callbacks.threads.count") == "auto":
            choice = _Choice()
            short_run(own, choice, -1, cfg.seed, finder.datamodule, kept=kept)
            own.callbacks.threads.count = choice.count
        short_run(own, clock, cfg.trainer.max_steps, cfg.seed, finder.datamodule, trainer, kept)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        clear()
    return Curve(batch_size, clock.looks, clock.reached, clock.given_up, clock.seconds)


def _not_reached(cfg: DictConfig, curves: list[Curve]) -> ConfigError:
    seen = [(loss, curve.batch_size) for curve in curves for _, loss in curve.looks if math.isfinite(loss)]
    best, size = min(seen, default=(math.nan, 0))
    told = f"the best {METRIC} is {best:.4g}, with data.batch_size={size}" if seen else f"there is no {METRIC}"
    least = f"tune.batch_size_loss={_above(best):g}, " if seen else ""
    return ConfigError(
        f"no batch size comes to tune.batch_size_loss={cfg.tune.batch_size_loss:g} within "
        f"trainer.max_epochs={cfg.trainer.max_epochs}: {told}",
        f"type {least}a larger trainer.max_epochs, or another optimizer.lr",
    )


def _above(loss: float) -> float:
    """The next number of three digits."""
    unit = 10.0 ** (math.floor(math.log10(abs(loss))) - 2) if loss else 1.0
    return math.ceil(loss / unit) * unit


def picture(found: TimeToLoss) -> "Figure":
    """Loss over seconds, one line for each size."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(found.curves):
        chosen = curve.batch_size == found.batch_size
        color = colormaps["viridis"](0.9 * number / max(len(found.curves) - 1, 1))
        seconds, losses = [look[0] for look in curve.looks], [look[1] for look in curve.looks]
        marker = "x" if curve.given_up else "o"
        width = 3.0 if chosen else 1.2
        axes.plot(seconds, losses, marker=marker, ms=5, color=color, lw=width, label=str(curve))
    axes.axhline(found.target, color="tab:red", ls="--", label=f"tune.batch_size_loss={found.target:g}")
    if found.target > 0 and all(loss > 0 for curve in found.curves for _, loss in curve.looks):
        axes.set_yscale("log")
    axes.set(xlabel="seconds of training", ylabel=METRIC, title=f"data.batch_size={found.batch_size}")
    axes.legend()
    return figure
