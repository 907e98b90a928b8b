"""Several processes of one search on this machine."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hydra.plugins.launcher import Launcher

from lstmopt.errors import ConfigError, Interrupted
from lstmopt.importing import imported
from lstmopt.search.launching import THREADS, share_of_cores
from lstmopt.search.progress import Progress
from lstmopt.search.study import Study
from lstmopt.search.work import work

if TYPE_CHECKING:
    from lstmopt.search.sweep import Sweep

PR_SET_PDEATHSIG = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Start no threads of torch meanwhile: processes that are forked later would wait for them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forked(study: Study, sweep: "Sweep", launcher: Launcher, deadline: float) -> list[BaseProcess]:
    """`search.n_jobs` processes that work at one study; what one says is in `worker-<k>.log`.

    They are copies of this one, which has imported all that a run needs, so that none imports it again. Each uses its
    share of the cores, and ends with this process. None waits for the slowest, as the jobs of a launcher's batch would.
    """
    imported("lstmopt.run")
    study.storage.engine.dispose()  # a connection belongs to one process
    fork = multiprocessing.get_context("fork")
    workers: list[BaseProcess] = []
    for k in range(sweep.search.n_jobs):
        log = sweep.folder / f"worker-{k}.log"
        workers.append(fork.Process(target=_work, args=(sweep, launcher, deadline, log), name=log.stem))
        workers[-1].start()
    return workers


def _work(sweep: "Sweep", launcher: Launcher, deadline: float, log: Path) -> None:
    import torch

    from lstmopt.train import end

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_the_parent()
    sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115  until the process ends
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    if THREADS not in os.environ:
        torch.set_num_threads(share_of_cores(sweep.search.n_jobs))
        os.environ[THREADS] = str(torch.get_num_threads())  # so that runs do not look for another number
    try:
        study = sweep.study()
        with Progress(study, sweep.directions) as progress:
            work(study, sweep, launcher, deadline, progress)
    except Exception as error:
        end(error)


def supervise(workers: list[BaseProcess], study: Study, folder: Path, progress: Progress) -> None:
    """Wait until all have ended.

    Raises:
        Interrupted: a signal asked for the end; the workers saved their checkpoints.
        ConfigError: a worker ended before its time.
    """
    before = {signum: signal.signal(signum, _end) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.25)
            progress.refresh()
    finally:
        for signum in before:
            signal.signal(signum, signal.SIG_IGN)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        for signum, handler in before.items():
            signal.signal(signum, handler)
    wrong = next((k for k, worker in enumerate(workers) if worker.exitcode), None)
    if wrong is not None and not study.finished():
        said = (folder / f"worker-{wrong}.log").read_text().strip().splitlines() or ["it said nothing"]
        code = workers[wrong].exitcode
        raise ConfigError(f"a process of the search ended with {code}: {said[-1][:200]}", f"see {folder}")


def _end(signum: int, frame: FrameType | None) -> None:
    error = Interrupted(signum)
    error.hint = "the same command goes on from here"
    raise error


def end_with_the_parent() -> None:
    """Before a child begins: it is sent SIGTERM when this process ends, and leaves SIGINT to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
