"""What paired runs say about the difference between two configs."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05  # of all variants together
POWER = 0.8
MOST_SEEDS = 1000  # that are ever advised
RESAMPLES = 9999
MOST_EXACT = 13  # seeds whose flips the test tries all; scipy's own limit with so many resamples
DRAWS = 2000

Array = NDArray[np.float64]
Verdict = Literal["better", "worse", "no difference shown", "too few seeds"]


@dataclass(frozen=True)
class Effect:
    """The difference between a variant and the base, over seeds.

    Attributes:
        n: seeds.
        mean: of variant minus base, in the metric's units.
        low: end of the 95 % bootstrap interval of that mean (BCa, Efron 1987).
        high: its other end.
        p: two-sided, of the permutation test that swaps base and variant within a seed.
        spread: standard deviation of the differences.
    """

    n: int
    mean: float
    low: float
    high: float
    p: float
    spread: float


def paired_effect(base: Array, variant: Array, seed: int = 0) -> Effect:
    """The effect of a variant.

    Args:
        base: the metric of the base, `[n]`, one for each seed.
        variant: of the variant, with the same seeds.
        seed: of the resampling; up to 13 seeds the permutation test is exact.
    """
    from scipy import stats

    difference = np.asarray(variant, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    n, mean = len(difference), float(np.mean(difference))
    if n < 2 or np.ptp(difference) == 0:
        p = 2.0 ** (1 - n) if mean else 1.0  # all differences have one sign, or there are none
        return Effect(n, mean, mean if n > 1 else -math.inf, mean if n > 1 else math.inf, p, 0.0)
    interval = stats.bootstrap(
        (difference,), np.mean, n_resamples=RESAMPLES, confidence_level=0.95, method="BCa", rng=seed
    ).confidence_interval
    test = stats.permutation_test(
        (variant, base), _mean_difference, permutation_type="samples", n_resamples=RESAMPLES, vectorized=True, rng=seed
    )
    spread = float(np.std(difference, ddof=1))
    return Effect(n, mean, float(interval.low), float(interval.high), float(test.pvalue), spread)


def _mean_difference(variant: Array, base: Array, axis: int) -> Array:
    return np.mean(variant - base, axis=axis)


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in the same order."""
    order = np.argsort(p_values)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def verdict(effect: Effect, adjusted_p: float, variants: int, mode: str) -> Verdict:
    """What may be said of a variant.

    Args:
        effect: of it.
        adjusted_p: its p-value after `holm`.
        variants: how many there are.
        mode: `min` or `max`, which way the metric is better.
    """
    if adjusted_p <= ALPHA:
        return "better" if (effect.mean < 0) == (mode == "min") else "worse"
    return "too few seeds" if effect.n < least_seeds(variants) else "no difference shown"


def least_seeds(variants: int) -> int:
    """So many seeds can show a difference at all: below, even one sign throughout is no evidence."""
    return math.ceil(math.log2(2 * variants / ALPHA))


def seeds_for(effect: Effect, variants: int) -> int | None:
    """Seeds that would show a true effect of the size and spread seen in four of five comparisons; None: over 1000."""
    if effect.mean == 0:
        return None
    if effect.spread == 0:
        return least_seeds(variants)
    size = abs(effect.mean) / effect.spread
    for n in range(least_seeds(variants), MOST_SEEDS + 1):
        if power(size, n, variants) >= POWER:
            return n
    return None


def shown_from(effect: Effect, variants: int) -> float:
    """The least true effect, in the metric's units, that so many seeds show in four of five comparisons."""
    from scipy.optimize import brentq

    if effect.n < least_seeds(variants):
        return math.inf
    if effect.spread == 0:
        return 0.0
    return float(effect.spread * brentq(lambda size: power(size, effect.n, variants) - POWER, 1e-6, 100, xtol=1e-3))


def power(size: float, n: int, variants: int = 1) -> float:
    """Probability that a true effect is shown, for normal differences.

    Up to 13 seeds by the permutation test itself on 2,000 draws, the same in every call; beyond by the paired t-test,
    which it comes close to.

    Args:
        size: mean of the differences in units of their standard deviation.
        n: seeds.
        variants: in the comparison; the level of each is the first of Holm's, the strictest.

    Reference: Cohen 1988, Statistical power analysis, chapter 2.
    """
    if n <= MOST_EXACT:
        drawn = np.random.default_rng(0).normal(size=(DRAWS, n)) + size
        sums = np.abs(drawn @ _flips(n).T)
        as_large = (sums >= sums[:, :1] * (1 - 1e-12)).sum(axis=1)
        return float(np.mean(as_large <= ALPHA / variants * sums.shape[1]))
    from scipy import stats

    critical = stats.t.ppf(1 - ALPHA / variants / 2, n - 1)
    moved = stats.nct(n - 1, size * math.sqrt(n))
    found = float(moved.sf(critical) + moved.cdf(-critical))
    return found if math.isfinite(found) else 1.0  # far out, where scipy's integral ends


@cache
def _flips(n: int) -> Array:
    """All signs of n differences, but for the sign of all together, `[2^(n-1), n]`; the first row flips nothing."""
    return np.array([(1, *signs) for signs in product((1, -1), repeat=n - 1)], dtype=np.float64)
