"""The variants of a comparison in their order."""

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from lstmopt.search.by_name import ByName

KEY = "variant"
BASE = ""  # nothing is typed beyond what all are given


class VariantSampler(ByName):
    """Trial 0 is the base, trial n the n-th variant.

    Args:
        variants: what is typed for each, as `optimizer=rmsprop` or `lr_scheduler=one_cycle optimizer.lr=0.01`.
        seed: is not used; every sampler is given one.
    """

    def __init__(self, variants: list[str], seed: int | None = None) -> None:
        self.variants = [BASE, *dict.fromkeys(" ".join(variant.split()) for variant in variants)]

    def points(self) -> list[dict[str, Any]]:
        """One for each trial."""
        return [{KEY: variant} for variant in self.variants]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The variant that has the trial's number."""
        return self.variants[trial.number]
