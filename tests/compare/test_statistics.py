"""Intervals and p-values beside scipy's and an enumeration, Holm's example, power beside a simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lstmopt.compare.statistics import (
    Effect,
    holm,
    least_seeds,
    paired_effect,
    power,
    seeds_for,
    shown_from,
    verdict,
)

BASE = np.array([0.52, 0.48, 0.55, 0.60, 0.47, 0.51, 0.58, 0.49])
VARIANT = np.array([0.50, 0.49, 0.50, 0.57, 0.46, 0.47, 0.55, 0.50])


def test_equal_to_scipy_and_to_an_enumeration():
    found = paired_effect(BASE, VARIANT)
    difference = VARIANT - BASE
    flips = np.array(list(itertools.product([1, -1], repeat=len(difference))))
    means = np.abs((flips * difference).mean(axis=1))
    assert found.p == pytest.approx(np.mean(means >= abs(difference.mean()) - 1e-12))
    interval = stats.bootstrap(
        (difference,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    other = stats.permutation_test(
        (VARIANT, BASE), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p == pytest.approx(other.pvalue)
    assert found.mean == pytest.approx(difference.mean()) and found.spread == pytest.approx(difference.std(ddof=1))


def test_many_seeds_are_sampled_and_close_to_the_t_test():
    rng = np.random.default_rng(1)
    base = rng.normal(size=40)
    variant = base + rng.normal(0.3, 1.0, size=40)
    assert paired_effect(base, variant).p == pytest.approx(stats.ttest_rel(variant, base).pvalue, abs=0.02)


def test_equal_runs_and_a_single_seed():
    same = paired_effect(BASE, BASE)
    assert (same.mean, same.p, same.low, same.high) == (0.0, 1.0, 0.0, 0.0)
    assert paired_effect(BASE[:1], VARIANT[:1]).p == 1.0
    always = paired_effect(np.zeros(6), np.ones(6))  # one sign throughout: 2 of 2**6 flips are as large
    assert always.p == pytest.approx(2 / 2**6)


def test_holm():
    # Holm 1979 step by step: 4 * 0.005, 3 * 0.01, 2 * 0.03, 1 * 0.04 and never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize("variants", [1, 2, 3, 10])
def test_least_seeds_is_where_one_sign_throughout_is_evidence(variants):
    n = least_seeds(variants)
    assert holm([2 / 2**n] + [1.0] * (variants - 1))[0] <= 0.05
    assert holm([2 / 2 ** (n - 1)] + [1.0] * (variants - 1))[0] > 0.05


@pytest.mark.parametrize(("size", "n"), [(0.8, 10), (1.2, 8), (0.0, 12)])
def test_power_is_what_a_simulation_finds(size, n):
    """All flips of the signs of each draw, by hand."""
    drawn = np.random.default_rng(1).normal(size, 1.0, size=(4000, n))
    flips = np.array(list(itertools.product([-1, 1], repeat=n)))
    p = np.array([np.mean(np.abs(flips @ one) >= abs(one.sum()) * (1 - 1e-12)) for one in drawn])
    assert power(size, n) == pytest.approx(np.mean(p <= 0.05), abs=0.03)


def test_advice_agrees_with_the_power():
    effect = Effect(8, -0.1, -0.2, 0.0, 0.1, 0.2)
    needed = seeds_for(effect, 1)
    assert power(0.5, needed) >= 0.8 > power(0.5, needed - 1)
    assert power(shown_from(effect, 1) / effect.spread, 8) == pytest.approx(0.8, abs=0.005)
    assert shown_from(Effect(4, -0.1, -0.2, 0.0, 0.1, 0.2), 1) == math.inf
    assert seeds_for(Effect(8, 0.0, 0.0, 0.0, 1.0, 0.2), 1) is None
    assert seeds_for(Effect(8, 1e-9, 0.0, 0.0, 1.0, 0.2), 1) is None


@pytest.mark.parametrize(
    ("mean", "p", "n", "mode", "words"),
    [
        (-0.1, 0.01, 8, "min", "better"),
        (0.1, 0.01, 8, "min", "worse"),
        (0.1, 0.01, 8, "max", "better"),
        (-0.1, 0.2, 8, "min", "no difference shown"),
        (-0.1, 0.07, 5, "min", "too few seeds"),
    ],
)
def test_verdict(mean, p, n, mode, words):
    assert verdict(Effect(n, mean, -1.0, 1.0, p, 0.1), p, 1, mode) == words
