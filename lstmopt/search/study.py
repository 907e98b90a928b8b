"""The trials of a study, shared by any number of processes through a database."""

import fcntl
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
import psutil
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from lstmopt.errors import ConfigError

Direction = Literal["minimize", "maximize"]
WORKER, SEEN, TRIES, SURPLUS, REASON = "worker", "seen", "tries", "surplus", "reason"
LOST = "lost"  # in the place of a worker
PATIENCE = 3  # heartbeats that may stay away
ADOPT = text(
    "UPDATE trial_user_attributes SET value_json = :new WHERE trial_id = :id AND key = :key AND value_json = :old"
)


class Study:
    """What one process does with a study: take trials that nobody works at, and tell how they ended.

    A trial has one owner at a time. A killed process leaves its trial to whoever finds it: on the same machine at once,
    elsewhere when its heartbeat stays away. The trial keeps its number and its values, and so its folder and its
    checkpoints. Trials are given out until `n_trials` have numbers, over all processes and restarts.

    Args:
        storage: URL of the database.
        name: the study's name.
        directions: `minimize` or `maximize`, one for each objective.
        sampler: makes the sampler of one trial from the trial's number, so that no proposal depends on how often the
            search was begun, and none is repeated.
        pruner: what gives trials up.
        n_trials: how many there shall be.
        max_retries: so often a trial that was killed before it got any further is begun again.
        heartbeat: seconds between two signs of life.
        lock: file that serves as a lock between processes of one machine.
        progress: how far the runs of the trial with this number are, as plain data.
    """

    def __init__(
        self,
        storage: str,
        name: str,
        directions: list[Direction],
        sampler: Callable[[int], BaseSampler],
        pruner: BasePruner,
        n_trials: int,
        max_retries: int,
        heartbeat: float,
        lock: Path,
        progress: Callable[[int], Any],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.lock, self.n_trials, self.max_retries, self.heartbeat = lock, n_trials, max_retries, heartbeat
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"
        self._make_sampler, self._progress = sampler, progress
        self._heard: dict[int, tuple[Any, float]] = {}
        self._beating: dict[int, threading.Event] = {}  # by the trial's id
        with self.alone():  # tables are made by one
            self.storage = opened(storage)
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, directions=directions, pruner=pruner, load_if_exists=True
            )

    def agree(self, key: str, value: Any) -> Any:
        """Keep a fact of the study; gives what was kept before, if anything was."""
        with self.alone():
            kept = self.study.user_attrs.get(key)
            if kept is None:
                self.study.set_user_attr(key, value)
            return value if kept is None else kept

    def trials(self) -> list[FrozenTrial]:
        """Those that count."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs]

    def take(self) -> Trial | None:
        """A trial to work at; None when all are done or someone else's. Wait, then, until `finished`."""
        for found in self.trials():
            if self._taken_over(found):
                return self._begin(found._trial_id)
        with self.alone():
            if len(self.trials()) >= self.n_trials:
                return None
            blank = optuna.create_trial(state=TrialState.RUNNING, user_attrs={WORKER: self.worker})
            trial_id = self.storage.create_new_trial(self.study._study_id, template_trial=blank)
        if len([trial for trial in self.trials() if trial._trial_id < trial_id]) >= self.n_trials:
            self.storage.set_trial_user_attr(trial_id, SURPLUS, True)  # another machine was faster
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
            return None
        return self._begin(trial_id)

    def again(self, number: int) -> Trial:
        """The trial that has this number, as its owner where the one before is dead; nothing is proposed for it."""
        found = next(trial for trial in self.study.get_trials(deepcopy=False) if trial.number == number)
        if self._taken_over(found):
            return self._begin(found._trial_id)
        self.study.sampler = optuna.samplers.RandomSampler()  # is not asked
        return Trial(self.study, found._trial_id)

    def leave_out(self, trial: Trial) -> None:
        """There is nothing left to propose: a trial does not count, and no more are given out."""
        trial.set_user_attr(SURPLUS, True)
        self.tell(trial, TrialState.FAIL)
        self.n_trials = len(self.trials())

    def to_go_on(self, trial: FrozenTrial) -> bool:
        """Whether a trial was begun and stopped, so that whoever takes it next goes on with it."""
        return trial.state == TrialState.RUNNING and self._abandoned(trial)

    def finished(self) -> bool:
        """Whether as many trials as there shall be have ended."""
        return sum(trial.state.is_finished() for trial in self.trials()) >= self.n_trials

    def tell(self, trial: Trial, state: TrialState, values: list[float] | None = None, reason: str = "") -> None:
        """How a trial ended."""
        self._stop_beating(trial)
        if reason:
            trial.set_user_attr(REASON, reason)
        self.study.tell(trial, values if state == TrialState.COMPLETE else None, state)

    def release(self, trial: Trial, lost: bool = False) -> None:
        """Leave a trial to whoever goes on with it; `lost`: its process was killed, and did not stop where it was
        asked to."""
        self._stop_beating(trial)
        trial.set_user_attr(WORKER, LOST if lost else "")

    def release_all(self) -> None:
        """Leave all trials of this process that have not ended."""
        for trial_id in list(self._beating):
            if not self.storage.get_trial(trial_id).state.is_finished():
                self.release(Trial(self.study, trial_id))

    def _begin(self, trial_id: int) -> Trial:
        number = self.storage.get_trial(trial_id).number
        self.study.sampler = self._make_sampler(number)
        self._beating[trial_id] = threading.Event()
        threading.Thread(target=self._beat, args=(trial_id, self._beating[trial_id]), daemon=True).start()
        return Trial(self.study, trial_id)

    def _beat(self, trial_id: int, ended: threading.Event) -> None:
        beats = 0
        while not ended.wait(self.heartbeat):
            beats += 1
            try:
                self.storage.set_trial_user_attr(trial_id, SEEN, f"{self.worker} {beats}")
            except Exception:  # the trial has ended, or the database is away: then the next beat is heard
                continue

    def _stop_beating(self, trial: Trial) -> None:
        ended = self._beating.pop(trial._trial_id, None)
        if ended is not None:
            ended.set()

    def _taken_over(self, trial: FrozenTrial) -> bool:
        """Take over a trial whose owner is dead; after too many deaths without progress between them it has failed."""
        if trial.state != TrialState.RUNNING or not self._abandoned(trial) or not self._adopt(trial):
            return False
        if trial.user_attrs.get(WORKER, "") == "":  # it was stopped in good order
            return True
        seen, tries = trial.user_attrs.get(TRIES, [None, 0])
        now = self._progress(trial.number)
        again = tries + 1 if now == seen else 1
        self.storage.set_trial_user_attr(trial._trial_id, TRIES, [now, again])
        if again > self.max_retries:
            self._end(trial, f"killed {again} times without getting any further")
        return bool(again <= self.max_retries)

    def _abandoned(self, trial: FrozenTrial) -> bool:
        """Whether its owner is dead."""
        owner = trial.user_attrs.get(WORKER, "")
        if owner in ("", LOST):
            return True
        host, pid, began = owner.rsplit(":", 2)
        if host == socket.gethostname():
            try:
                process = psutil.Process(int(pid))  # which may be another one with its id, or dead and not waited for
                return abs(process.create_time() - float(began)) > 5 or process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True
        sign = (owner, trial.user_attrs.get(SEEN))
        before, since = self._heard.setdefault(trial.number, (sign, time.monotonic()))
        if before != sign:
            self._heard[trial.number] = sign, time.monotonic()
            return False
        return time.monotonic() - since > PATIENCE * self.heartbeat

    def _adopt(self, trial: FrozenTrial) -> bool:
        """Become its owner; of several that try at once, one does."""
        old, new = (json.dumps(owner) for owner in (trial.user_attrs.get(WORKER, ""), self.worker))
        with self.storage.engine.begin() as connection:
            done = connection.execute(ADOPT, {"new": new, "old": old, "id": trial._trial_id, "key": WORKER})
        return done.rowcount == 1

    def _end(self, trial: FrozenTrial, reason: str) -> None:
        self.storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the other processes of this folder wait."""
        with open(self.lock, "a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield


def opened(url: str) -> RDBStorage:
    """The database behind a URL.

    Raises:
        ConfigError: there is none, its driver is not installed, it cannot be reached, or it is damaged.
    """
    try:
        parsed = make_url(url)
        shown = parsed.render_as_string(hide_password=True)
    except ArgumentError:
        raise ConfigError(
            "search.storage is not the URL of a database",
            "type search.storage=sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME",
        ) from None
    problem = damage(parsed.database) if url.startswith("sqlite") and parsed.database else None
    if problem:
        raise ConfigError(
            f"search.storage={shown} is damaged: {problem}",
            "type search.study=NAME for a new study, and another search.storage where one was typed",
        )
    try:
        waiting = {"timeout": 60} if url.startswith("sqlite") else {}
        return RDBStorage(url, engine_kwargs={"connect_args": waiting, "pool_pre_ping": True})
    except ImportError as error:
        raise ConfigError(f"search.storage={shown} needs {error.name}", "type pip install 'psycopg[binary]'") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise ConfigError(f"search.storage={shown} cannot be used: {reason}", "see docs/search.md") from None


def damage(file: str) -> str | None:
    """What SQLite finds wrong with the pages of a file; None where it is whole, or not there."""
    if not Path(file).is_file():
        return None
    try:
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:  # locked, or not to be opened: told by what opens it next
        return None
    except sqlite3.DatabaseError as error:
        found = str(error)
    return None if found == "ok" else found.splitlines()[-1]


def reopened(storage: str, name: str, number: int, pruner: BasePruner | None) -> Trial:
    """A trial of a study, in a process of its own."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.RandomSampler()  # is not asked
    study = optuna.load_study(study_name=name, storage=opened(storage), pruner=pruner, sampler=sampler)
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return Trial(study, trial_id)
