"""Trials as jobs of a Hydra launcher, one after another or in batches."""

import time
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from optuna.trial import Trial, TrialState

from lstmopt.errors import ConfigError, Interrupted
from lstmopt.launched import BASIC
from lstmopt.search.keras_tuner import Exhausted, KerasTuner
from lstmopt.search.launching import launched, wait_for
from lstmopt.search.objectives import Outcome, outcome
from lstmopt.search.progress import Progress
from lstmopt.search.study import Study

if TYPE_CHECKING:
    from lstmopt.search.sweep import Sweep


def work(study: Study, sweep: "Sweep", launcher: Launcher, deadline: float, progress: Progress) -> None:
    """Take trials, a batch at a time, until there are none."""
    size = 1 if sweep.config.hydra.launcher._target_ == BASIC else sweep.search.n_jobs
    while time.monotonic() < deadline:
        batch: list[Trial] = []
        while len(batch) < size and (trial := study.take()) is not None:
            batch.append(trial)
        if not batch:
            if study.finished():
                return
            time.sleep(0.5)  # others are at work, and may die
            progress.refresh()
            continue
        _launch(study, sweep, launcher, batch)
        progress.refresh()


def _launch(study: Study, sweep: "Sweep", launcher: Launcher, batch: list[Trial]) -> None:
    """Run the jobs of some trials side by side, seed after seed, and tell how they ended."""
    jobs: dict[int, list[list[str]]] = {}
    for trial in list(batch):
        try:
            values = sweep.space.suggest(trial)
        except Exhausted:
            study.leave_out(trial)
            batch.remove(trial)
            continue
        sampler = trial.study.sampler
        words = sampler.words(trial) if isinstance(sampler, KerasTuner) else []
        jobs[trial.number] = [[*job, *words] for job in sweep.overrides(trial.number, values)]
        trial.set_user_attr("overrides", [*sweep.words(values), *words])
        try:
            if sweep.config.hydra.launcher._target_ != BASIC:  # which tells of one job; others give up the batch
                sweep.composed(sweep.words(values))
        except ConfigError as error:
            study.tell(trial, TrialState.FAIL, reason=str(error).splitlines()[0])
            batch.remove(trial)
    ended: dict[int, list[Outcome]] = {trial.number: [] for trial in batch}
    lost: set[int] = set()
    try:
        for k in range(sweep.search.seeds_per_trial):
            alive = [trial for trial in batch if all(o.state == TrialState.COMPLETE for o in ended[trial.number])]
            lost |= _launch_seed(sweep, launcher, [t for t in alive if t.number not in lost], k, jobs, ended)
        for trial in batch:
            if trial.number in lost:
                study.release(trial, lost=True)  # it is begun again, as often as search.max_retries says
                continue
            found = ended[trial.number]
            if found[-1].state == TrialState.COMPLETE:
                means = [sum(column) / len(found) for column in zip(*(one.values for one in found), strict=True)]
                study.tell(trial, TrialState.COMPLETE, means)
            else:
                study.tell(trial, found[-1].state, reason=found[-1].reason)
    except BaseException as error:
        in_good_order = isinstance(error, Interrupted | KeyboardInterrupt | SystemExit)
        for trial in batch:
            study.release(trial, lost=not in_good_order)
        raise


def _launch_seed(
    sweep: "Sweep",
    launcher: Launcher,
    trials: list[Trial],
    k: int,
    jobs: dict[int, list[list[str]]],
    ended: dict[int, list[Outcome]],
) -> set[int]:
    """Run the k-th seed of some trials; the numbers of those whose processes were killed."""
    folders = {trial.number: sweep.run_folder(trial.number, k) for trial in trials}
    wait_for(list(folders.values()))
    known = {number: outcome(folder, sweep.directions) for number, folder in folders.items()}
    left = [trial for trial in trials if known[trial.number] is None]  # not ended in an earlier process
    lost: set[int] = set()
    for trial in left:
        if isinstance(trial.study.sampler, KerasTuner):
            trial.study.sampler.prepare(trial, lambda number: sweep.run_folder(number, k))
    if left:
        log = folders[left[0].number] if sweep.config.hydra.launcher._target_ == BASIC else sweep.folder
        log.mkdir(parents=True, exist_ok=True)
        words = [jobs[trial.number][k] for trial in left]
        with open(log / "output.log", "a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            returned = launched(launcher, words, left[0].number, sweep.search.n_jobs)
        for trial, job in zip(left, returned, strict=True):
            error = job._return_value if job and job.status == JobStatus.FAILED else None
            if isinstance(error, Interrupted):
                error.hint = "the same command goes on from here"
                raise error
            known[trial.number] = outcome(folders[trial.number], sweep.directions, error)
            lost |= {trial.number} if job is None and known[trial.number] is None else set()
    for trial in (trial for trial in trials if trial.number not in lost):
        one = known[trial.number] or Outcome(TrialState.FAIL, reason="left no results.json")
        ended[trial.number].append(one)
        if sweep.by_seeds and one.state == TrialState.COMPLETE:
            trial.report(one.values[0], step=k)
            if k + 1 < sweep.search.seeds_per_trial and trial.should_prune():
                ended[trial.number].append(Outcome(TrialState.PRUNED, reason=f"given up after {k + 1} seeds"))
    return lost
