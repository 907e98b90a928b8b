"""Every point once."""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from lstmopt.search.space import Space


class GridSampler(BaseSampler):
    """The points of a grid, each once, however many processes work at it: a trial's number is a point's number.

    `optuna.samplers.GridSampler` looks for points that are left, may give one to two processes, and has no conditions.
    The order is a permutation by `seed`, so that a search that is stopped early has seen all parts of the grid.

    Args:
        points_per_range: so many values of a range that has no step.
        seed: of the order.

    Attributes:
        space: what is varied; the search puts it here.
    """

    def __init__(self, points_per_range: int = 3, seed: int | None = None) -> None:
        self.points_per_range, self.seed = points_per_range, seed
        self.space: Space | None = None

    def points(self) -> list[dict[str, Any]]:
        """The points in the order of the trials."""
        assert self.space is not None
        found = self.space.points(self.points_per_range)
        return [found[index] for index in np.random.default_rng(self.seed).permutation(len(found))]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: every value is given by name."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of the point that has the trial's number."""
        points = self.points()
        return points[trial.number % len(points)][param_name]
