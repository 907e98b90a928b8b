"""The learning rate that range tests suggest for a config."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from lstmopt.tune.range_test import RangeTest
from lstmopt.tune.short_run import short_run
from lstmopt.tune.valley import BELOW, Valley, valley

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEDS = 3
AVERAGED = 1.0  # takes the place of BELOW where an average of the weights is evaluated, which quiets larger steps


@dataclass(frozen=True)
class FoundRate:
    """What the range tests gave.

    Attributes:
        lr: the suggested rate, of two digits.
        curves: (rates, losses) of each seed.
        valley: the smoothed median and where it falls.
        seconds: that it took.
    """

    lr: float
    curves: list[tuple[list[float], list[float]]]
    valley: Valley
    seconds: float


def find_lr(cfg: DictConfig, seeds: int = SEEDS) -> FoundRate:
    """Range tests with the config's data, model, optimizer, clipping, precision and memory option, from fresh weights.

    Weights and batch orders are of other seeds than the run's own. Nothing of the tests is kept but the rate.

    Args:
        cfg: the composed config; it is not changed.
        seeds: range tests.

    Raises:
        ConfigError: the curves suggest no rate.
        Interrupted: a signal came.
    """
    began = time.monotonic()
    datamodule, curves = None, []
    for k in range(seeds):
        test = RangeTest()
        datamodule = short_run(cfg, test, test.steps, (cfg.seed + 7919 * (k + 1)) % 2**32, datamodule)
        curves.append((test.rates[: len(test.losses)], test.losses))
    found = valley(curves, AVERAGED if (cfg.callbacks or {}).get("schedule_free") else BELOW)
    return FoundRate(float(f"{found.rate:.1e}"), curves, found, time.monotonic() - began)


def picture(found: FoundRate) -> "Figure":
    """The losses of each seed, their smoothed median, and the rate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (rates, losses) in enumerate(found.curves):
        scale = found.valley.scales[number]
        axes.plot(rates, np.array(losses) / scale, color="tab:gray", alpha=0.4, lw=0.8)
    axes.plot(found.valley.rates, found.valley.losses, color="tab:blue", label=f"median of {len(found.curves)} seeds")
    inside = slice(found.valley.start, found.valley.end + 1)
    axes.plot(found.valley.rates[inside], found.valley.losses[inside], color="tab:orange", lw=3, label="valley")
    axes.axvline(found.lr, color="tab:red", ls="--", label=f"optimizer.lr={found.lr:g}")
    least, most = np.min(found.valley.losses), np.max(found.valley.losses[: found.valley.end + 1])
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss / first loss", title="learning-rate range test")
    axes.set_ylim(least - 0.2 * (most - least), most + 0.6 * (most - least))
    axes.legend()
    return figure
