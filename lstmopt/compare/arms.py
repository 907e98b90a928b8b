"""What the runs of a comparison left."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from lstmopt import results
from lstmopt.search.objectives import value_of
from lstmopt.search.progress import STATUS

if TYPE_CHECKING:
    from lstmopt.compare.variants import Variants

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """One seed of a variant.

    Attributes:
        value: the metric at its best.
        seconds: of training.
        memory: peak, MB.
        steps: optimizer steps done at each validation, `[n]`; empty without TensorBoard files.
        curve: the metric there, `[n]`.
        total: optimizer steps in all.
        metrics: of the run, those of the test included.
    """

    value: float
    seconds: float
    memory: float
    steps: Array
    curve: Array
    total: int
    metrics: dict[str, float]

    def seconds_to(self, value: float, mode: str) -> float:
        """Seconds of training until the metric is at least as good; infinite where it never is."""
        if not self.total or not len(self.curve):
            return math.nan
        reached = np.flatnonzero(self.curve <= value if mode == "min" else self.curve >= value)
        return self.seconds * float(self.steps[reached[0]]) / self.total if len(reached) else math.inf


@dataclass(frozen=True)
class Arm:
    """The base or a variant.

    Attributes:
        label: what was typed for it; `base`.
        status: of its trial.
        reason: why it failed or was given up.
        runs: by the number of the seed, those that were completed.
    """

    label: str
    status: str
    reason: str
    runs: dict[int, Run] = field(default_factory=dict)


def arm(trial: FrozenTrial, sweep: "Variants") -> Arm:
    """What the folders of a variant hold."""
    metric = next(iter(sweep.directions))
    found = Arm(sweep.label(trial.number), STATUS[trial.state], trial.user_attrs.get("reason", ""))
    for k in range(sweep.search.seeds_per_trial):
        folder = sweep.run_folder(trial.number, k)
        result = results.read(folder) or {"status": "none"}
        if result["status"] != "completed":
            continue
        value = value_of(result, metric)
        if math.isfinite(value):
            steps, curve = read_curve(folder, metric)
            seconds, memory = result["train_seconds"], result["peak_memory_mb"]
            total = int(result["steps"])  # those of the curve are logged from 0 on
            found.runs[k] = Run(value, seconds, memory, steps + 1, curve, total, result["metrics"])
    return found


def read_curve(folder: Path, metric: str) -> tuple[Array, Array]:
    """Steps and values of a metric in the event files of a run folder; empty where there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    if folder.is_dir():
        events.Reload()
    if metric not in events.Tags()["scalars"]:
        return np.empty(0), np.empty(0)
    points = {event.step: event.value for event in events.Scalars(metric)}  # a resumed run may write a step again
    return np.array(list(points), dtype=np.float64), np.array(list(points.values()), dtype=np.float64)
