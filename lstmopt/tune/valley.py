"""Which learning rate the curves of range tests suggest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lstmopt.errors import ConfigError

FIRST = 10  # steps whose mean is the first loss
SMOOTHED = 4.0  # steps, standard deviation of the kernel
RISE = 0.1  # of the lowest loss, or of the fall where that is less: above it the valley ends
BELOW = 10.0  # so many times smaller than the rate at the valley's end is the suggested one
LEAST_FALL = 0.02  # of the first loss

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Valley:
    """Where the smoothed median of the curves falls.

    Attributes:
        rate: the suggested rate.
        rates: of the median curve.
        losses: the smoothed median, each curve in units of its first loss.
        start: where the curve begins to fall (a tenth of the fall is done).
        end: where it begins to rise again (a tenth above the lowest loss).
        scales: first loss of each curve.
    """

    rate: float
    rates: Array
    losses: Array
    start: int
    end: int
    scales: list[float]


def valley(curves: list[tuple[list[float], list[float]]], below: float = BELOW) -> Valley:
    """A tenth of the rate at which the smoothed median of the curves begins to rise again, or another part of it.

    Each curve is divided by its first loss, the mean of ten steps. At each rate the median is taken, in which a curve
    that ended is infinite, and smoothed along the rates by a Gaussian kernel. The lowest point itself lies anywhere on
    a floor that is flat and noisy, so that the end of the floor is looked for. A range test uses a rate for one step:
    what does no harm there is too large for a run, which uses it for all steps.

    Args:
        curves: (rates, losses) of each seed, at the same rates; they may end early.
        below: the suggested rate is so many times smaller than the one at the valley's end.

    Raises:
        ConfigError: losses that are no numbers from the start, or that fall at no rate, or up to the highest.
    """
    length = max(len(losses) for _, losses in curves)
    rates = np.array(max((rates for rates, _ in curves), key=len), dtype=np.float64)[:length]
    table = np.full((len(curves), length), np.inf)
    scales = []
    for row, (_, curve) in zip(table, curves, strict=True):
        row[: len(curve)] = curve
        scales.append(float(np.mean(row[:FIRST])))
        row /= abs(scales[-1]) if np.isfinite(scales[-1]) and scales[-1] else np.nan
    table[~np.isfinite(table)] = np.inf
    median = np.median(table, axis=0)
    finite = np.isfinite(median)
    length = length if finite.all() else int(np.argmin(finite))
    if length < 2 * FIRST:
        raise refusal(f"the loss is NaN or infinite after {length} steps at rates up to {rates[length - 1]:.1e}")
    rates, median = rates[:length], median[:length]
    losses = _smoothed(median)
    floor = int(np.argmin(losses))
    least = float(losses[floor])
    fall, noise = 1 - least, float(np.std((median - losses)[: length // 2]))
    if floor < FIRST or fall < max(LEAST_FALL, noise):
        most = max(fall, 0) if floor >= FIRST else 0
        raise refusal(f"the loss falls by {most:.1%} at most, at rates from {rates[0]:.0e} to {rates[-1]:.1e}")
    if floor >= length - 2 and length == table.shape[1]:
        raise refusal(f"the loss still falls at the highest rate, {rates[-1]:.1e}")
    above = np.flatnonzero(losses[floor:] > least + RISE * min(least, fall))
    end = floor + int(above[0]) if len(above) else length - 1
    before = np.flatnonzero(losses[: floor + 1] > 1 - 0.1 * fall)
    start = int(before[-1]) if len(before) else 0
    return Valley(float(rates[end]) / below, rates, losses, start, end, scales)


def refusal(problem: str) -> ConfigError:
    """The error where there is nothing to suggest."""
    return ConfigError(f"tune.lr finds no learning rate: {problem}", "type optimizer.lr=... in place of tune.lr=true")


def _smoothed(values: Array) -> Array:
    """A Gaussian mean along the steps; at the ends, of what is there."""
    steps = np.arange(len(values))
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / SMOOTHED) ** 2)
    smoothed: Array = kernel @ values / kernel.sum(axis=1)
    return smoothed
