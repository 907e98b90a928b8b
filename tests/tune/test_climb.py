"""The way from one rate to a better one, on functions whose minimum is known."""

import math

import pytest

from lstmopt.tune.climb import climb


@pytest.mark.parametrize("best", [1e-4, 3e-3, 0.02, 1.0])
@pytest.mark.parametrize("start", [1e-4, 0.01, 0.3])
def test_the_best_rate_is_within_half_a_step_of_the_minimum(best, start):
    scores = climb(lambda rate: math.log(rate / best) ** 2, start)
    found = min(scores, key=scores.__getitem__)
    reached = min(max(best, start * 10**-2.5), start * 10**2.5)
    assert abs(math.log10(found / reached)) <= 0.25 + 1e-9
    assert len(scores) == len(set(scores)) <= 7


def test_rates_that_cannot_be_used_are_left():
    scores = climb(lambda rate: math.inf if rate > 0.02 else -rate, 0.3)
    assert min(scores, key=scores.__getitem__) == pytest.approx(0.3 / 10**1.5)
    assert len(climb(lambda rate: math.inf, 0.3)) == 7 and math.isinf(climb(lambda rate: math.inf, 0.3)[0.3])


def test_flat_scores_keep_the_rate():
    asked = []
    scores = climb(lambda rate: asked.append(rate) or 1.0, 0.01)
    assert list(scores) == sorted(asked) and len(asked) == 3
    assert min(scores.items(), key=lambda one: (one[1], abs(math.log(one[0] / 0.01))))[0] == 0.01
