"""Several processes of one search on this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

from lstmopt.errors import ConfigError, Interrupted
from lstmopt.search.progress import Progress
from lstmopt.search.study import Study

PR_SET_PDEATHSIG = 1


def supervise(study: Study, n_jobs: int, folder: Path, progress: Progress) -> None:
    """Start the same command `n_jobs` times on one study, and wait until all have ended.

    None waits for the slowest, as the jobs of a launcher's batch would. Each uses its share of the cores. They end with
    this process, and what one says is in `worker-<k>.log`.

    Raises:
        Interrupted: a signal asked for the end; the workers saved their checkpoints.
        ConfigError: a worker ended before its time.
    """
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    cores = psutil.cpu_count(logical=False) or 1
    environment = {"OMP_NUM_THREADS": str(max(1, cores // n_jobs))} | os.environ | environment
    name = study.study.study_name
    command = [sys.executable, "-m", "lstmopt.train", *sys.argv[1:], "search.n_jobs=1", "search.report=false"]
    command += [f"hydra.sweep.dir={folder}", f"search.study={name}"]
    before = {signum: signal.signal(signum, _end) for signum in (signal.SIGTERM, signal.SIGINT)}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for k in range(n_jobs):
            with open(folder / f"worker-{k}.log", "ab") as log:
                workers.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=environment, preexec_fn=end_with_the_parent)
                )
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.25)
            progress.refresh()
    finally:
        for signum in before:
            signal.signal(signum, signal.SIG_IGN)
        for worker in workers:
            if worker.poll() is None:
                worker.terminate()
        codes = [worker.wait() for worker in workers]
        for signum, handler in before.items():
            signal.signal(signum, handler)
    wrong = next((k for k, code in enumerate(codes) if code), None)
    if wrong is not None and not study.finished():
        said = (folder / f"worker-{wrong}.log").read_text().strip().splitlines() or ["it said nothing"]
        raise ConfigError(f"a process of the search ended with {codes[wrong]}: {said[-1][:200]}", f"see {folder}")


def _end(signum: int, frame: FrameType | None) -> None:
    error = Interrupted(signum)
    error.hint = "the same command goes on from here"
    raise error


def end_with_the_parent() -> None:
    """Before a child begins: it is sent SIGTERM when this process ends, and leaves SIGINT to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent passes it on
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
