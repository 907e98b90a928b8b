"""One trial on a node of a Ray cluster. Only Ray's workers and `ray_tune` import this."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray import tune

from lstmopt import run_folder
from lstmopt.errors import ConfigError
from lstmopt.search.objectives import Outcome, outcome
from lstmopt.search.space import quoted
from lstmopt.search.workers import end_with_the_parent

ENDING = ".ending"  # this file in the folder of the sweep says that the search is being stopped
PATIENCE = 60.0  # seconds for what a killed worker has left to end


class RayTrial(tune.Trainable):
    """Runs `lstmopt-train` in a process of its own, epoch by epoch, one seed after another.

    A step is an epoch of the first seed; Ray answers by the next step, or by the end. The process ends with its worker,
    and a worker that takes its place goes on from `last.ckpt` in the run folder, which all nodes have to see.

    Raises:
        RuntimeError: the process was killed, so that Ray tries again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take over what the search has put together."""
        self.jobs: list[list[str]] = config["jobs"]
        self.folders = [Path(folder) for folder in config["folders"]]
        self.directions: dict[str, str] = config["directions"]
        self.ended: list[Outcome] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.last: dict[str, Any] = {}

    def step(self) -> dict[str, Any]:
        """Wait for the next epoch, or for the end of all seeds."""
        while True:
            if self.process is None:
                self._start()
            elif self.last:
                self._answer("go")
            line = self.reports.readline()
            if line:
                self.last = json.loads(line)
                return dict(self.last)
            self.ended.append(self._ended())
            if self.ended[-1].state != TrialState.COMPLETE or len(self.ended) == len(self.jobs):
                return self._told()

    def cleanup(self) -> None:
        """Give the trial up, or, where the search is being stopped, have it saved."""
        if self.process is None or self.process.poll() is not None:
            return
        if (self.folders[0].parent / ENDING).exists() or (self.folders[0].parent.parent / ENDING).exists():
            self.process.terminate()
            self._answer("go")
        else:
            self._answer("stop")
        self.process.wait()

    def _start(self) -> None:
        number = len(self.ended)
        folder = self.folders[number]
        _wait_until_free(folder)
        mine, other = socket.socketpair()
        words = [*self.jobs[number], "hydra.mode=RUN", f"hydra.run.dir={quoted(str(folder))}"]
        if number == 0:
            words.append(f"search.channel={other.fileno()}")
        with open(folder / "output.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lstmopt.train", *words],
                stdout=log,
                stderr=log,
                pass_fds=[other.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                preexec_fn=end_with_the_parent,
            )
        other.close()
        self.reports, self.answers = mine.makefile("r"), mine.makefile("w")
        mine.close()

    def _answer(self, word: str) -> None:
        try:
            self.answers.write(word + "\n")
            self.answers.flush()
        except OSError:
            pass  # it has ended

    def _ended(self) -> Outcome:
        """How the run of a seed ended."""
        assert self.process is not None
        code, folder = self.process.wait(), self.folders[len(self.ended)]
        self.process, self.last = None, self.last if not self.ended else {}
        if code < 0 or code in (128 + signal.SIGTERM, 128 + signal.SIGINT):
            raise RuntimeError(f"the process of {folder} was stopped by a signal ({code})")
        found = outcome(folder, self.directions) if code == 0 else None
        return found or Outcome(TrialState.FAIL, reason=_reason(folder / "output.log", code))

    def _told(self) -> dict[str, Any]:
        last = self.ended[-1]
        columns = zip(*(one.values for one in self.ended), strict=True) if last.state == TrialState.COMPLETE else []
        values = [sum(column) / len(self.ended) for column in columns]
        return self.last | {"done": True, "state": last.state.name, "values": values, "reason": last.reason}


def _reason(log: Path, code: int) -> str:
    """The line of a log that says why a run ended."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    told = [line.removeprefix("lstmopt: ") for line in lines if line.startswith("lstmopt: ")]
    return (told[-1] if code == 2 and told else lines[-1])[:200]


def _wait_until_free(folder: Path) -> None:
    """Wait for the process of a worker that was killed, which saves its state first.

    Raises:
        RuntimeError: it does not end.
    """
    began = time.monotonic()
    while True:
        try:
            run_folder.hold(folder)
            run_folder.release(folder)
            return
        except ConfigError as error:
            if time.monotonic() - began > PATIENCE:
                raise RuntimeError(str(error)) from None
            time.sleep(0.2)
