"""Which learning rate the curves of range tests suggest."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lstmopt.errors import ConfigError

FIRST = 10  # steps whose mean is the first loss
SMOOTHED = 2.5  # steps, standard deviation of the kernel
BELOW_FLOOR = 4.0  # the suggested rate is this many times smaller than the one at the valley's floor
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
        floor: where it is lowest.
        scales: first loss of each curve.
    """

    rate: float
    rates: Array
    losses: Array
    start: int
    floor: int
    scales: list[float]


def valley(curves: list[tuple[list[float], list[float]]]) -> Valley:
    """A quarter of the rate at which the smoothed median of the curves is lowest.

    Each curve is divided by its first loss, the mean of ten steps. At each rate the median is taken, in which a curve
    that ended is infinite, and smoothed along the rates by a Gaussian kernel. In a range test a rate is used for one step:
    the rate of the floor is the largest that still did good, and too large for a run, which uses it for all steps.

    Args:
        curves: (rates, losses) of each seed, at the same rates; they may end early.

    Raises:
        ConfigError: losses that are no numbers from the start, or that fall at no rate, or up to the highest.
    """
    length = max(len(losses) for _, losses in curves)
    rates = np.array(max((rates for rates, _ in curves), key=len), dtype=np.float64)[:length]
    table = np.full((len(curves), length), np.inf)
    scales = []
    for row, (_, losses) in zip(table, curves, strict=True):
        row[: len(losses)] = losses
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
    fall, noise = 1 - losses[floor], float(np.std((median - losses)[: length // 2]))
    if fall < max(LEAST_FALL, noise):
        raise refusal(
            f"the loss falls by {max(fall, 0):.1%} at most, at rates from {rates[0]:.0e} to {rates[-1]:.1e}"
        )
    if floor >= length - 2 and length == len(table[0]):
        raise refusal(f"the loss still falls at the highest rate, {rates[-1]:.1e}")
    below = np.flatnonzero(losses[: floor + 1] > 1 - 0.1 * fall)
    start = int(below[-1]) if len(below) else 0
    return Valley(float(rates[floor]) / BELOW_FLOOR, rates, losses, start, floor, scales)


def refusal(problem: str) -> ConfigError:
    """The error where there is nothing to suggest."""
    return ConfigError(f"tune.lr finds no learning rate: {problem}", "type optimizer.lr=... in place of tune.lr=true")


def _smoothed(values: Array) -> Array:
    """A Gaussian mean along the steps; at the ends, of what is there."""
    steps = np.arange(len(values))
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / SMOOTHED) ** 2)
    smoothed: Array = kernel @ values / kernel.sum(axis=1)
    return smoothed
