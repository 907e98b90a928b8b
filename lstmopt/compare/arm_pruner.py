"""Give up a variant all of whose seeds are worse than all of the base's."""

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from lstmopt.compare.statistics import least_seeds


class ArmPruner(BasePruner):
    """The extreme of Wilcoxon's rank-sum test: the variant's best is worse than the base's worst of the same seeds.

    Of two times n values of one distribution that has the chance n! n! / (2n)!. It falls so fast that all looks from
    the sixth seed on, however many, give up less than 0.15 % of the variants without a difference (whatever ties the
    values of a seed together: 2^-n at most in a look, 3.2 % in all). By so little at most a false `worse` becomes more
    likely. All pairs have one sign then, and the p-value that is told is the permutation test's of these n seeds.

    `optuna.pruners.WilcoxonPruner` tests against the best trial, whose success says nothing about whether another
    variant is worse than the base.

    Args:
        n_startup_steps: seeds before the first look; never fewer than can show a difference among so many variants.

    Attributes:
        variants: how many there are beside the base.

    Reference: Wilcoxon 1945, Individual comparisons by ranking methods.
    """

    def __init__(self, n_startup_steps: int = 5) -> None:
        self.n_startup_steps = n_startup_steps
        self.variants = 1

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the variant is to be given up now."""
        base = next((one for one in study.get_trials(deepcopy=False) if one.number == 0), None)
        if base is None or trial.number == 0 or base.state == TrialState.FAIL:
            return False
        seeds = trial.intermediate_values.keys() & base.intermediate_values.keys()
        if len(seeds) <= self.n_startup_steps or len(seeds) < least_seeds(self.variants):
            return False
        sign = 1 if study.direction.name == "MINIMIZE" else -1
        best = min(sign * trial.intermediate_values[seed] for seed in seeds)
        return best > max(sign * base.intermediate_values[seed] for seed in seeds)
