"""Give up a variant that is behind the base on seed after seed."""

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lstmopt.compare.statistics import least_seeds


class ArmPruner(BasePruner):
    """Wilcoxon's signed-rank test of a variant's seeds against the same seeds of the base.

    `optuna.pruners.WilcoxonPruner` tests against the best trial, whose success says nothing about whether another
    variant is worse than the base.

    Args:
        p_threshold: one-sided p-value below which the variant is given up; with 0.005 that is after 8 seeds at the
            earliest, as 7 of one sign have 1/128.
        n_startup_steps: seeds before the first look; never fewer than can show a difference among so many variants.

    Attributes:
        variants: how many there are beside the base.

    Reference: Wilcoxon 1945, Individual comparisons by ranking methods.
    """

    def __init__(self, p_threshold: float = 0.005, n_startup_steps: int = 5) -> None:
        self.p_threshold, self.n_startup_steps = p_threshold, n_startup_steps
        self.variants = 1

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the variant is to be given up now."""
        from scipy.stats import wilcoxon

        base = next((one for one in study.get_trials(deepcopy=False) if one.number == 0), None)
        if base is None or trial.number == 0 or base.state == TrialState.FAIL:
            return False
        seeds = sorted(trial.intermediate_values.keys() & base.intermediate_values.keys())
        if len(seeds) <= self.n_startup_steps or len(seeds) < least_seeds(self.variants):
            return False
        sign = 1 if study.direction.name == "MINIMIZE" else -1
        behind = [sign * (trial.intermediate_values[seed] - base.intermediate_values[seed]) for seed in seeds]
        if not any(behind):
            return False
        return bool(wilcoxon(behind, alternative="greater").pvalue < self.p_threshold)
