"""A variant is given up when all its seeds are worse than the base's, whatever the other variants do."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from scipy import stats

from lstmopt.compare.arm_pruner import ArmPruner
from lstmopt.compare.arms import Arm, Run
from lstmopt.compare.report import compared
from lstmopt.compare.statistics import holm, least_seeds

BASE = [0.50, 0.52, 0.48, 0.55, 0.51, 0.49, 0.53, 0.50]


def study_of(*arms, direction="minimize"):
    study = optuna.create_study(direction=direction)
    for values in arms:
        trial = study.ask()
        for seed, value in enumerate(values):
            trial.report(value, seed)
    return study


@pytest.mark.parametrize(
    ("values", "given_up"),
    [
        ([value + 0.1 for value in BASE[:6]], True),
        ([value + 0.1 for value in BASE[:5]], False),  # five of one sign show nothing
        ([value + 0.01 for value in BASE], False),  # behind in each pair, by less than seeds differ
        ([value + 10.0**k for k, value in enumerate(BASE[:6])], True),  # diverged, each in its own way
        ([value - 0.1 for value in BASE], False),
        (BASE, False),
        ([0.55] * 6, False),  # as bad as the base's worst
        ([value + sign * 0.1 for value, sign in zip(BASE, [1, -1] * 4, strict=True)], False),
    ],
)
def test_a_variant_against_the_base(values, given_up):
    study = study_of(BASE, values)
    assert ArmPruner().prune(study, study.trials[1]) is given_up
    other_way = study_of([-value for value in BASE], [-value for value in values], direction="maximize")
    assert ArmPruner().prune(other_way, other_way.trials[1]) is given_up


def test_no_variant_is_given_up_before_a_difference_can_be_shown():
    pruner = ArmPruner()
    pruner.variants = 7  # Holm asks each for 0.05 / 7, and 8 seeds of one sign have 2/256
    study = study_of([*BASE, 0.5], [value + 0.1 for value in BASE])
    assert not pruner.prune(study, study.trials[1])
    study = study_of([*BASE, 0.5], [value + 0.1 for value in [*BASE, 0.5]])
    assert pruner.prune(study, study.trials[1])


def test_a_variant_is_not_measured_by_a_better_one():
    study = study_of(BASE, [value - 0.3 for value in BASE], [value - 0.1 for value in BASE])
    study.tell(1, 0.2)
    assert not ArmPruner().prune(study, study.trials[2])
    assert not ArmPruner().prune(study, study.trials[0])


def seeds_of(base, variant, variants=1):
    """So many seeds a variant gets, as in `lstmopt-compare`: there is no look after the last one."""
    pruner = ArmPruner()
    pruner.variants = variants
    first, second = (SimpleNamespace(number=k, state=None, intermediate_values={}) for k in (0, 1))
    first.intermediate_values = dict(enumerate(base))
    study = SimpleNamespace(direction=SimpleNamespace(name="MINIMIZE"), get_trials=lambda deepcopy: [first, second])
    for seed, value in enumerate(variant[:-1]):
        second.intermediate_values[seed] = value
        if pruner.prune(study, second):
            return seed + 1
    return len(base)


def test_the_chance_of_a_look_is_that_of_the_rank_sum_test():
    separated = stats.mannwhitneyu(range(6, 12), range(6), alternative="greater", method="exact").pvalue
    assert separated == pytest.approx(1 / math.comb(12, 6))
    assert sum(1 / math.comb(2 * n, n) for n in range(6, 200)) < 0.0015


@pytest.mark.parametrize("draw", ["normal", "exponential", "standard_cauchy"])
@pytest.mark.parametrize("seeds", [8, 20])
def test_without_a_difference_hardly_any_is_given_up_in_all_looks(seeds, draw):
    drawn = getattr(np.random.default_rng(0), draw)(size=(4000, 2, seeds))
    given_up = np.mean([seeds_of(*one) < seeds for one in drawn.tolist()])
    assert given_up <= 0.003  # expected: less than 0.0015


@pytest.mark.parametrize("variants", [1, 3])
def test_a_lost_one_is_given_up_before_its_last_seed(variants):
    drawn = np.random.default_rng(0).normal(size=(1000, 2, 8))  # 8 are the default of lstmopt-compare
    drawn[:, 1] += 4.0
    assert np.mean([seeds_of(*one, variants) < 8 for one in drawn.tolist()]) >= 0.9


@pytest.mark.parametrize("variants", [1, 3])
def test_given_up_or_not_a_difference_is_said_as_seldom_as_is_stated(variants):
    """Base and variants of one distribution; the exact permutation test by hand, of as many seeds as each got."""
    flips = {n: np.array(list(itertools.product([-1, 1], repeat=n))) for n in (6, 7, 8)}
    drawn, said = np.random.default_rng(0).normal(size=(4000, 1 + variants, 8)), 0
    for base, *others in drawn:
        p_values = []
        for one in others:
            n = seeds_of(base.tolist(), one.tolist(), variants)
            difference = (one - base)[:n]
            sums = np.abs(flips[n] @ difference)
            p_values.append(float(np.mean(sums >= abs(difference.sum()) * (1 - 1e-12))))
        said += min(holm(p_values)) <= 0.05
    assert said / len(drawn) <= 0.05


@pytest.mark.parametrize("variants", [1, 3])
def test_one_that_was_given_up_is_worse_with_the_p_value_of_its_own_seeds(variants):
    n = least_seeds(variants)
    values = [BASE, [value + 0.1 for value in BASE[:n]], *[BASE[::-1]] * (variants - 1)]
    assert seeds_of(BASE, [value + 0.1 for value in BASE], variants) == n
    runs = [{k: Run(value, 1.0, 1.0, np.empty(0), np.empty(0), 1, {}) for k, value in enumerate(arm)} for arm in values]
    arms = [Arm(str(k), "completed", "", found) for k, found in enumerate(runs)]
    arms[1] = Arm("lost", "pruned", f"given up after {n} seeds", runs[1])
    lost = compared(arms, "min")[1]
    assert lost["verdict"] == "worse" and lost["seeds"] == n
    assert lost["p"] == 2.0 ** (1 - n) and lost["p_holm"] == pytest.approx(variants * lost["p"])
