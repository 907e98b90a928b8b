"""Many processes, killed at any moment, work at one study."""

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing, suppress

import numpy as np
import optuna
import psutil
import pytest
from optuna.trial import TrialState

from lstmopt.errors import ConfigError
from lstmopt.search.space import read
from lstmopt.search.study import Study, opened, reopened

SPACE = read(
    {"x": {"low": 0.0, "high": 1.0}, "kind": ["a", "b", "c"], "y": {"low": 1, "high": 9, "when": {"kind": "b"}}}
)
FORK = multiprocessing.get_context("fork")


def study(folder, n_trials=20, heartbeat=60.0, max_retries=5, make=optuna.samplers.RandomSampler, progress=0):
    url = f"sqlite:///{folder}/study.db"
    pruner = optuna.pruners.NopPruner()
    lock = folder / ".study.lock"
    sampler = lambda k: make(seed=k)  # noqa: E731
    return Study(
        url, "test", ["minimize"], sampler, pruner, n_trials, max_retries, heartbeat, lock, lambda number: progress
    )


def work(folder, pause=0.0, **options):
    """What a process of a search does, with a trial that only sleeps."""
    mine = study(folder, **options)
    while True:
        trial = mine.take()
        if trial is None:
            if mine.finished():
                return
            time.sleep(0.05)
            continue
        values = SPACE.suggest(trial)
        time.sleep(pause * random.random())
        mine.tell(trial, TrialState.COMPLETE, [values["x"]])


def start(folder, **options):
    process = FORK.Process(target=work, args=(folder,), kwargs=options)
    process.start()
    return process


def left(folder):
    return optuna.load_study(study_name="test", storage=f"sqlite:///{folder}/study.db").trials


def wait_for_a_trial(folder):
    """Until one is under way, however slow the machine is; read without Optuna, which would make the tables."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(f"file:{folder}/study.db?mode=ro", uri=True)) as db,
        ):
            if db.execute("SELECT COUNT(*) FROM trials WHERE state = 'RUNNING'").fetchone()[0]:
                return
        time.sleep(0.02)


def unique(trials):
    return len({trial.params["x"] for trial in trials}) == len(trials)


def test_exactly_so_many_trials_by_four_processes(tmp_path):
    processes = [start(tmp_path, pause=0.05) for _ in range(4)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    trials = left(tmp_path)
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 20}
    assert unique(trials)
    assert len({trial.user_attrs["worker"] for trial in trials}) > 1


def test_killed_processes_lose_and_repeat_nothing(tmp_path):
    random.seed(0)
    for _ in range(6):
        processes = [start(tmp_path, pause=0.3) for _ in range(2)]
        wait_for_a_trial(tmp_path)
        time.sleep(0.3 + 0.7 * random.random())
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join(10)
    last = start(tmp_path)
    last.join(60)
    trials = left(tmp_path)
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 20}
    assert [trial.number for trial in trials] == list(range(20)) and unique(trials)
    assert any("tries" in trial.user_attrs for trial in trials)  # some were gone on with


def test_proposals_depend_on_the_number_alone(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder, parts in ((first, [20]), (second, [3, 9, 20])):
        folder.mkdir()
        for n_trials in parts:
            work(folder, n_trials=n_trials)
    assert [trial.params for trial in left(first)] == [trial.params for trial in left(second)]


def test_a_trial_that_kills_its_process_is_not_begun_for_ever(tmp_path):
    for _ in range(4):
        process = FORK.Process(
            target=lambda: (study(tmp_path, n_trials=1, max_retries=3).take(), os.kill(os.getpid(), 9))
        )
        process.start()
        process.join(30)
    mine = study(tmp_path, n_trials=1, max_retries=3)
    assert mine.take() is None and mine.finished()
    (trial,) = left(tmp_path)
    assert trial.state == TrialState.FAIL and "killed 4 times" in trial.user_attrs["reason"]


def test_a_trial_that_gets_further_is_begun_as_often_as_it_is_killed(tmp_path):
    for done in range(8):
        FORK.Process(
            target=lambda: (study(tmp_path, n_trials=1, max_retries=3, progress=done).take(), os.kill(os.getpid(), 9))  # noqa: B023
        ).start()
        multiprocessing.active_children()
        while multiprocessing.active_children():
            time.sleep(0.01)
    mine = study(tmp_path, n_trials=1, max_retries=3, progress=8)
    assert mine.take() is not None


def test_a_trial_that_was_stopped_in_good_order_has_not_been_killed(tmp_path):
    mine = study(tmp_path, n_trials=1, max_retries=3)
    for _ in range(8):
        mine.release(mine.take())
    for _ in range(3):
        mine.release(mine.take(), lost=True)
    trial = mine.take()
    assert trial is not None
    mine.release(trial, lost=True)
    assert mine.take() is None and mine.finished()


def test_the_trial_of_a_process_that_is_dead_and_not_waited_for_is_taken_over(tmp_path):
    pid = os.fork()
    if not pid:
        study(tmp_path, n_trials=1).take()
        os._exit(0)
    mine = study(tmp_path, n_trials=1)
    try:
        until = time.monotonic() + 60
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert mine.take() is not None
    finally:
        os.waitpid(pid, 0)


def test_a_trial_of_another_machine_is_taken_when_its_heartbeat_stays_away(tmp_path, monkeypatch):
    there = study(tmp_path, n_trials=1, heartbeat=0.1)
    monkeypatch.setattr(there, "worker", "elsewhere:1:0")
    trial = there.take()
    here = study(tmp_path, n_trials=1, heartbeat=0.1)
    for _ in range(8):  # it is heard
        assert here.take() is None
        time.sleep(0.1)
    there._stop_beating(trial)
    began = time.monotonic()
    while (taken := here.take()) is None and time.monotonic() < began + 10:
        time.sleep(0.05)
    assert taken is not None and taken.number == trial.number
    here.tell(taken, TrialState.COMPLETE, [1.0])
    assert here.finished()


def test_one_of_many_becomes_the_owner(tmp_path):
    first = study(tmp_path, n_trials=1)
    first.release(first.take())
    (found,) = first.trials()
    others = [study(tmp_path, n_trials=1) for _ in range(5)]
    for k, other in enumerate(others):
        other.worker = f"machine-{k}:1:0"
    assert sum(other._adopt(found) for other in others) == 1


def test_a_trial_is_found_again_by_its_number(tmp_path):
    mine = study(tmp_path)
    trial = mine.take()
    trial.report(0.5, 1)
    again = reopened(f"sqlite:///{tmp_path}/study.db", "test", trial.number, optuna.pruners.ThresholdPruner(upper=0.4))
    again.report(0.3, 2)
    assert not again.should_prune()
    again.report(np.nan, 3)
    assert again.should_prune()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("study.db", "not the URL of a database"),
        ("sqlite:////no/such/folder/study.db", "cannot be used"),
        ("postgresql://me:secret@127.0.0.1:1/none", "cannot be used|needs psycopg2"),
        ("oracle+nothing://me:secret@host/none", "cannot be used|needs"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(url, said):
    with pytest.raises(ConfigError, match=said) as told:
        opened(url)
    assert "secret" not in str(told.value)
