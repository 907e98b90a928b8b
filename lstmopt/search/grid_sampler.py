"""Every point once."""

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from lstmopt.search.by_name import ByName
from lstmopt.search.space import Space


class GridSampler(ByName):
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

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of the point that has the trial's number."""
        points = self.points()
        return points[trial.number % len(points)][param_name]
