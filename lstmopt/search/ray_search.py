"""Ray Tune's proposals, made in the study's database. Needs Ray; only `ray_tune` imports this."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from lstmopt import results
from lstmopt.search import space
from lstmopt.search.progress import Progress
from lstmopt.search.study import Study

if TYPE_CHECKING:
    from lstmopt.search.sweep import Sweep

_present: dict[str, Any] = {}


class Proposals(OptunaSearch):
    """`OptunaSearch` on the trials of a `Study`: those that a killed search left come first, and how each ended is told
    in the study's words.

    Args:
        study: gives trials out, no more than there shall be.
        sweep: makes the words that a trial is started with.
        deadline: of `time.monotonic`, after which no trial is begun.
        progress: is told of trials that ended.
    """

    def __init__(self, study: Study, sweep: "Sweep", deadline: float, progress: Progress) -> None:
        self.study, self.sweep, self.deadline, self.progress = study, sweep, deadline, progress
        super().__init__(space=self._job, metric="value", mode=sweep.config.mode)

    def __reduce__(self) -> tuple[Any, ...]:
        """Ray writes searchers into its files; what it reads again is the present search, which knows its storage."""
        return present, ("searcher",)

    def _setup_study(self, mode: str | list[str]) -> None:
        self._ot_study = self.study.study

    def _job(self, trial: Any) -> dict[str, Any]:
        """What Ray hands to a worker; `trial` wraps Optuna's, and is asked as by any define-by-run function."""
        number = trial.number
        values = self.sweep.space.suggest(trial)
        trial.set_user_attr("overrides", [space.override(key, value) for key, value in values.items()])
        seeds = range(self.sweep.search.seeds_per_trial)
        return {
            "jobs": self.sweep.overrides(number, values),
            "folders": [str(self.sweep.run_folder(number, k)) for k in seeds],
            "directions": self.sweep.directions,
        }

    def suggest(self, trial_id: str) -> Any:
        """The job of the next trial, or that there is none."""
        if trial_id not in self._ot_trials:
            trial = self.study.take() if time.monotonic() < self.deadline else None
            if trial is None:
                return Searcher.FINISHED
            self._ot_trials[trial_id] = trial
        job = super().suggest(trial_id)
        return {key: job[key] for key in ("jobs", "folders", "directions")}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep an epoch's value."""
        trial = self._ot_trials[trial_id]
        known = trial.storage.get_trial(trial._trial_id)
        reported = known.state.is_finished() or result.get("epochs") in known.intermediate_values
        if len(self.sweep.directions) == 1 and "value" in result and not reported:
            trial.report(result["value"], step=result["epochs"])
        self.progress.refresh()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Keep how it ended: by itself, given up by Ray's scheduler, or killed too often."""
        trial, result = self._ot_trials[trial_id], result or {}
        if trial.storage.get_trial(trial._trial_id).state.is_finished():
            return
        if error:
            self.study.tell(trial, TrialState.FAIL, reason=self._error(trial_id))
        elif "state" in result:
            self.study.tell(trial, TrialState[result["state"]], result["values"], result["reason"])
        else:
            self.on_trial_result(trial_id, result)
            self.study.tell(trial, TrialState.PRUNED)
        self.progress.refresh()

    def left(self) -> bool:
        """Whether trials of an earlier process have not ended."""
        return any(trial.state == TrialState.RUNNING for trial in self.study.trials())

    def save(self, checkpoint_path: str) -> None:
        """Which of Ray's trials is which of the study's."""
        numbers = {trial_id: trial.number for trial_id, trial in self._ot_trials.items()}
        path = Path(checkpoint_path)
        results.write(path.parent, numbers, path.name)

    def restore(self, checkpoint_path: str) -> None:
        """Take over the trials of the process before."""
        numbers = json.loads(Path(checkpoint_path).read_text())
        self._ot_trials = {trial_id: self.study.again(number) for trial_id, number in numbers.items()}

    def _error(self, trial_id: str) -> str:
        told = [path.read_text() for path in self.sweep.folder.glob(f"ray/*/{trial_id}/error.txt")]
        last = "".join(told).strip().splitlines()[-1:] or ["its worker was killed"]
        return f"began {self.sweep.search.max_retries + 1} times: {last[0][:200]}"


class Halving(ASHAScheduler):
    """ASHA that knows the trials of earlier processes, which Ray's own record does not hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        """As for `Proposals`."""
        return present, ("scheduler",)

    def replay(self, trials: list[FrozenTrial]) -> None:
        """See the epochs of trials that have ended."""
        for trial in trials:
            stand_in: Any = SimpleNamespace(trial_id=f"trial {trial.number}", status="TERMINATED")
            if trial.state.is_finished() and trial.intermediate_values:
                self.on_trial_add(None, stand_in)
                for epochs, value in sorted(trial.intermediate_values.items()):
                    self.on_trial_result(None, stand_in, {"epochs": epochs, "value": value})


def begin(searcher: Proposals, scheduler: TrialScheduler) -> None:
    """Make them those of this process, which Ray gets where it reads its files."""
    _present.update(searcher=searcher, scheduler=scheduler)


def present(name: str) -> Any:
    """The searcher or the scheduler of this process."""
    return _present[name]


def named(trial: RayTrial) -> str:
    """A trial's name in Ray, and that of its folder there."""
    return str(trial.trial_id)
