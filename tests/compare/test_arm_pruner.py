"""A variant is given up when it is behind the base, whatever the other variants do."""

import optuna
import pytest

from lstmopt.compare.arm_pruner import ArmPruner

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
        ([value + 0.1 for value in BASE], True),
        ([value - 0.1 for value in BASE], False),
        ([value + 0.1 for value in BASE[:7]], False),  # seven of one sign: 1/128
        (BASE, False),
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
    pruner.variants = 7  # Holm asks each for 0.05 / 7, and 8 seeds of one sign have 1/128
    study = study_of([*BASE, 0.5], [value + 0.1 for value in BASE])
    assert not pruner.prune(study, study.trials[1])
    study.ask()
    study = study_of([*BASE, 0.5], [value + 0.1 for value in [*BASE, 0.5]])
    assert pruner.prune(study, study.trials[1])


def test_a_variant_is_not_measured_by_a_better_one():
    study = study_of(BASE, [value - 0.3 for value in BASE], [value - 0.1 for value in BASE])
    study.tell(1, 0.2)
    assert not ArmPruner().prune(study, study.trials[2])
    assert not ArmPruner().prune(study, study.trials[0])
