"""The rate that is suggested: on curves of problems whose stable rates are known, and on curves that suggest none."""

import numpy as np
import pytest

from lstmopt.errors import ConfigError
from lstmopt.tune.lr_finder import FoundRate, picture
from lstmopt.tune.valley import valley

RATES = [1e-6 * 10 ** (7 * k / 139) for k in range(140)]


def quadratic(curvature, seed, limit=4.0):
    """Gradient descent on curvature (w - noise)^2 / 2 while the rate grows: it diverges above 2 / curvature."""
    draw = np.random.default_rng(seed)
    weight, losses = 10.0, []
    for rate in RATES:
        off = weight - draw.normal()
        losses.append(curvature * off**2 / 2)
        weight -= rate * curvature * off
        if len(losses) > 20 and np.mean(losses[-5:]) > limit * np.mean(losses[:10]):
            break
    return RATES[: len(losses)], losses


@pytest.mark.parametrize("curvature", [0.3, 1.0, 30.0, 1000.0])
def test_the_rate_for_a_quadratic_is_stable_and_near_the_best(curvature):
    """The best rate for the first step is 1 / curvature, and twice of it is the last that is stable."""
    found = valley([quadratic(curvature, seed) for seed in range(3)])
    assert 0.02 / curvature < found.rate < 1 / curvature
    assert RATES[found.start] < found.rate < found.rates[found.end] < 4 / curvature


def test_a_hundred_steps_at_that_rate_come_near_the_noise():
    for curvature in (0.3, 30.0):
        rate = valley([quadratic(curvature, seed) for seed in range(3)]).rate
        rest = 10 * (1 - rate * curvature) ** 100  # in closed form, without the noise
        assert abs(rest) < 1.5


def test_another_part_of_the_rate_at_the_end():
    curves = [quadratic(1.0, seed) for seed in range(3)]
    found = valley(curves, 2.0)
    assert found.rate == found.rates[found.end] / 2 and valley(curves).rate == pytest.approx(found.rate / 5)


def test_a_planted_divergence_is_kept_away_from():
    """Two seeds of three diverge at 1e-3: the third alone, which goes on to fall, is not followed."""

    def falling(stop=None):
        losses = [1 / (1 + (rate / 1e-4)) + 0.01 for rate in RATES]
        if stop is not None:
            losses = [loss if rate < stop else np.nan for rate, loss in zip(RATES, losses, strict=True)]
            losses = losses[: next(k for k, loss in enumerate(losses) if np.isnan(loss)) + 1]
        return RATES[: len(losses)], losses

    found = valley([falling(1e-3), falling(1e-3), falling()])
    assert 0.5e-4 < found.rate < 1e-4
    assert max(found.rates) < 1e-3


def test_scale_and_one_wild_seed_do_not_matter():
    curves = [quadratic(1.0, seed) for seed in range(3)]
    scaled = [(rates, [factor * loss for loss in losses]) for factor, (rates, losses) in zip((1, 50, 7), curves)]  # noqa: B905
    assert valley(scaled).rate == pytest.approx(valley(curves).rate, rel=1e-9)
    wild = [*curves[:2], (curves[2][0], [np.nan] * len(curves[2][1]))]
    assert 0.25 < valley(wild).rate / valley(curves).rate < 4


NOISE = np.random.default_rng(0).normal(1, 0.05, (3, 140))
REFUSED = {
    "falls by": [(RATES, list(row)) for row in NOISE],
    "NaN or infinite after 0 steps": [(RATES[:1], [np.nan])] * 3,
    "NaN or infinite after 12 steps": [(RATES[:13], [1.0] * 12 + [np.inf])] * 3,
    "still falls at the highest rate": [(RATES, list(np.linspace(1, 0.1, 140)))] * 3,
    "the loss falls by 0.0%": [(RATES, list(np.linspace(1, 3, 140)))] * 3,
}


@pytest.mark.parametrize("why", REFUSED)
def test_it_refuses_instead_of_guessing(why):
    with pytest.raises(ConfigError, match="tune.lr finds no learning rate") as refused:
        valley(REFUSED[why])
    assert why in refused.value.problem
    assert "optimizer.lr=" in refused.value.hint


def test_the_picture_shows_curves_median_and_rate():
    curves = [quadratic(1.0, seed) for seed in range(3)]
    found = valley(curves)
    (axes,) = picture(FoundRate(found.rate, curves, found, 1.0)).axes
    assert len(axes.lines) == 6  # three seeds, the median, its fall, the rate
    assert axes.lines[-1].get_xdata()[0] == found.rate
