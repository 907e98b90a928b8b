"""What a search makes small or large, and what a trial came to."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from lstmopt import results
from lstmopt.callbacks.last_checkpoint import NAME
from lstmopt.checkpoint_file import read
from lstmopt.errors import CheckpointError, ConfigError
from lstmopt.search.study import Direction

FIELDS = ("train_seconds", "peak_memory_mb", "parameters", "samples_per_second", "epochs", "steps")
ENDED = {"completed": TrialState.COMPLETE, "pruned": TrialState.PRUNED}


@dataclass
class Outcome:
    """How a run of a trial ended.

    Attributes:
        state: complete, pruned or failed.
        values: one for each objective.
        reason: why it failed or was given up.
    """

    state: TrialState
    values: list[float] = field(default_factory=list)
    reason: str = ""


def directions(objectives: list[str] | None, monitor: str, mode: str) -> dict[str, Direction]:
    """`minimize` or `maximize` for each objective, by name.

    Args:
        objectives: `val/loss`, or `val/accuracy:maximize`; without any, the monitored metric.
        monitor: that metric.
        mode: `min` or `max`, which way it is better.

    Raises:
        ConfigError: no such objective or direction.
    """
    found: dict[str, Direction] = {}
    for written in objectives or [f"{monitor}:{mode}imize"]:
        name, _, direction = written.partition(":")
        if direction not in ("", "minimize", "maximize"):
            raise ConfigError(f"search.objectives: {written}", f"write {name}:minimize or {name}:maximize")
        if name not in FIELDS and not name.startswith(("val/", "train/", "test/")):
            raise ConfigError(
                f"search.objectives: {name} is nothing that a run measures",
                f"write a metric, as val/loss, or one of {', '.join(FIELDS)}",
            )
        found[name] = "maximize" if direction == "maximize" else "minimize"
    return found


def outcome(folder: Path, objectives: Mapping[str, str], error: Any = None) -> Outcome | None:
    """What the results in a run folder say; None where it has not ended.

    Args:
        folder: of the run.
        objectives: by name their directions.
        error: what the run raised, if it did.
    """
    result = results.read(folder) or {"status": "none"}
    if error is None and result["status"] not in ENDED:
        return None
    if error is not None:
        return Outcome(TrialState.FAIL, reason=f"{type(error).__name__}: {error}".splitlines()[0][:200])
    if result["status"] == "pruned":
        return Outcome(TrialState.PRUNED)
    values = [value_of(result, name) for name in objectives]
    wrong = [name for name, value in zip(objectives, values, strict=True) if not math.isfinite(value)]
    if wrong:
        return Outcome(TrialState.FAIL, reason=f"{wrong[0]} is {value_of(result, wrong[0])}")
    return Outcome(TrialState.COMPLETE, values)


def saved_steps(folder: Path) -> int:
    """Steps in the newest checkpoint of a run, 0 without one."""
    try:
        return int(read(folder / "checkpoints" / NAME)["global_step"])
    except CheckpointError:
        return 0


def value_of(result: dict[str, Any], name: str) -> float:
    """A metric or another fact in a `results.json`, NaN where there is none; validation metrics are those of the epoch
    in which the monitored one was best, where its weights were kept."""
    metrics = result["metrics"] | result.get("metrics_at_best", {})
    found = result["best"] if name == result["monitor"] else result.get(name, metrics.get(name))
    return math.nan if found is None else float(found)
