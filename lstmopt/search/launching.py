"""Trials of a search in the processes of a launcher: joblib, or submitit on this machine or a cluster."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf.errors import OmegaConfBaseException

from lstmopt import run_folder
from lstmopt.cores import share_of_cores
from lstmopt.errors import Interrupted

KILLED = ("TerminatedWorkerError", "BrokenProcessPool", "UncompletedJobError")  # of joblib and of submitit
THREADS = "OMP_NUM_THREADS"


def wait_for(folders: list[Path]) -> None:
    """Wait for trials of a search that was killed: those that a launcher had started train on."""
    while any(map(run_folder.at_work, folders)):
        time.sleep(0.5)


def launched(launcher: Launcher, jobs: list[list[str]], number: int, n_jobs: int) -> list[JobReturn | None]:
    """Run some jobs side by side, each with its share of the cores.

    Where a process is killed, a launcher gives up all that it runs. That is told, and is no error.

    Args:
        launcher: Hydra's.
        jobs: overrides of each.
        number: of the first.
        n_jobs: so many run at a time.

    Returns:
        what each came to; None for all where a process was killed.

    Raises:
        Interrupted: a signal asked for the end, and the jobs of this machine have saved their checkpoints.
    """
    if type(launcher).__name__ == "BasicLauncher":  # one, in this process
        try:
            return list(launcher.launch(jobs, number))
        except (HydraException, OmegaConfBaseException) as error:  # its config cannot be composed
            print(error)
            return [JobReturn(status=JobStatus.FAILED, _return_value=error)]
    with _told_to_end() as asked, _shared_cores(launcher, n_jobs):
        try:
            found: list[JobReturn | None] = list(launcher.launch(jobs, number))
        except Exception as error:
            if asked:
                raise _stopped(asked[0]) from None
            if type(error).__name__ not in KILLED:
                raise
            print(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            found = [None] * len(jobs)
    if asked:
        raise _stopped(asked[0])
    return found


def _stopped(signum: int) -> Interrupted:
    error = Interrupted(signum)
    error.hint = "the same command goes on from here"
    return error


@contextmanager
def _told_to_end() -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the jobs, which save and end; a second one ends the search at once."""
    asked: list[int] = []

    def pass_on(signum: int, frame: FrameType | None) -> None:
        jobs = psutil.Process().children(recursive=True)
        if asked or not jobs:
            raise _stopped(signum)
        asked.append(signum)
        for job in jobs:
            with suppress(psutil.NoSuchProcess):
                job.terminate()

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def _shared_cores(launcher: Launcher, n_jobs: int) -> Iterator[None]:
    """Let jobs on this machine start with as many threads as they have cores each, unless that is set."""
    kind = type(launcher).__name__
    options = getattr(launcher, "joblib", {})
    if options.get("n_jobs") == -1:
        options["n_jobs"] = max(2, n_jobs)  # with one, joblib would run the job in this process
    if THREADS in os.environ or kind not in ("JoblibLauncher", "LocalLauncher"):
        yield
        return
    os.environ[THREADS] = str(share_of_cores(n_jobs))
    try:
        yield
    finally:
        del os.environ[THREADS]
