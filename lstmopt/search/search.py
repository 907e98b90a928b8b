"""A search from its first trial to its report."""

import math
import time
from contextlib import suppress
from typing import Any

from hydra.plugins.launcher import Launcher
from optuna.trial import TrialState

from lstmopt.build import make
from lstmopt.errors import ConfigError, Interrupted
from lstmopt.launched import BASIC
from lstmopt.search import report
from lstmopt.search.progress import Progress
from lstmopt.search.study import Study
from lstmopt.search.sweep import Sweep
from lstmopt.search.work import work
from lstmopt.search.workers import forked, supervise
from lstmopt.signals import Stopped, answered


def run(sweep: Sweep, launcher: Launcher) -> None:
    """Work until all trials have ended, then report; however it ends, it leaves `sweep.json`.

    Raises:
        ConfigError: more trials failed than `search.max_failure_rate`.
        Interrupted: a signal asked for the end.
    """
    cluster = make(sweep.search.cluster) if sweep.search.cluster else None  # which may lack its package
    study = sweep.study()
    try:
        with answered():
            _run(study, sweep, launcher, cluster)
    except Stopped as stop:  # between two trials
        raise Interrupted(stop.signum, "the same command goes on from here") from None


def _run(study: Study, sweep: Sweep, launcher: Launcher, cluster: Any) -> None:
    try:
        _work(study, sweep, launcher, cluster)
    except BaseException:
        with suppress(Exception):  # the database may be what is away
            study.release_all()
            report.brief(report.keep(study, sweep), sweep, table=bool(sweep.search.report))
        raise
    found = report.keep(study, sweep)
    if sweep.search.report:
        sweep.report(found, study)
    else:
        report.brief(found, sweep, table=False)
    failed = [trial for trial in study.trials() if trial.state == TrialState.FAIL]
    if len(failed) > sweep.search.max_failure_rate * study.n_trials:
        reasons = "; ".join(dict.fromkeys(trial.user_attrs.get("reason", "") for trial in failed))
        raise ConfigError(
            f"{len(failed)} of {study.n_trials} trials failed: {reasons[:300]}",
            "see output.log in their folders, or type search.max_failure_rate=1",
        )


def _work(study: Study, sweep: Sweep, launcher: Launcher, cluster: Any) -> None:
    config = sweep.config
    deadline = time.monotonic() + (config.search.timeout or math.inf)
    several = cluster is None and config.search.n_jobs > 1 and config.hydra.launcher._target_ == BASIC
    workers = forked(study, sweep, launcher, deadline) if several else []
    with Progress(study, sweep.directions) as progress:
        if cluster is not None:
            cluster.search(study, sweep, deadline, progress)
        elif workers:
            supervise(workers, study, sweep.folder, progress)
        else:
            work(study, sweep, launcher, deadline, progress)
