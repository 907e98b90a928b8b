"""Searches and sweeps whose jobs joblib or submitit's local executor starts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SMALL = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "model.hidden_size=8"]
SMALL += ["callbacks.picture=null", "logger=none", "callbacks.early_stopping=null"]
LAUNCHERS = ["joblib", "submitit_local"]
SEARCH = ["search=random", "search/pruner=asha", "search.n_trials=4", "search.n_jobs=2", "search.study=s"]
SPACE = "optimizer.lr=tag(log,interval(1e-6,1e-1))"
THREADS = """
import json, os, torch
from lstmopt.models.lstm import LSTM


class Counting(LSTM):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        told = {"pid": os.getpid(), "threads": torch.get_num_threads()}
        with open("threads.json", "a") as file:
            file.write(json.dumps(told) + "\\n")
"""


def started(folder, *arguments, **environment):
    """The program as a process of its own, which decides about threads itself."""
    command = [sys.executable, "-m", "lstmopt.train", *arguments]
    given = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    given |= {"PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(folder)])} | environment
    with (
        open(folder / "out.txt", "w") as out,
        open(folder / "err.txt", "w") as err,
    ):  # no pipes, which orphans would hold
        return subprocess.Popen(command, cwd=folder, env=given, stdout=out, stderr=err)


def ended(process, folder):
    """What it said on both streams."""
    process.wait(timeout=400)
    return (folder / "out.txt").read_text(), (folder / "err.txt").read_text()


def trials(folder):
    return json.loads((folder / "sweep.json").read_text())["trials"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_search_with_asha(launcher, tmp_path):
    (tmp_path / "counting.py").write_text(THREADS)
    own = ["model._target_=counting.Counting", "plugins.allow=[counting]", "trainer.max_epochs=3"]
    search = started(tmp_path, *SEARCH, SPACE, *SMALL, *own, f"hydra/launcher={launcher}")
    said, errors = ended(search, tmp_path)
    assert search.returncode == 0, errors
    found = trials(tmp_path / "multirun" / "s")
    assert [trial["number"] for trial in found] == [0, 1, 2, 3]
    assert {trial["status"] for trial in found} <= {"completed", "pruned"}
    for trial in found:
        result = json.loads(Path(trial["run_dir"], "results.json").read_text())
        assert result["status"] == trial["status"]
        assert "epoch 1/3" in Path(trial["run_dir"], "output.log").read_text()
    assert "epoch 1/3" not in said + errors
    threads = [json.loads(line) for line in (tmp_path / "threads.json").read_text().splitlines()]
    cores = min(psutil.cpu_count(logical=False), len(os.sched_getaffinity(0)))
    assert len(threads) == 4 and {one["threads"] for one in threads} == {max(1, cores // 2)}
    assert len({one["pid"] for one in threads}) >= 2 and search.pid not in {one["pid"] for one in threads}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_of_which_one_job_fails(launcher, tmp_path):
    words = ["-m", "model.num_layers=1,2", "data.input_length=16,4000", "hydra.sweep.dir=sweep"]
    words += [word for word in SMALL if "input_length" not in word]
    sweep = started(tmp_path, *words, "trainer.max_epochs=1", f"hydra/launcher={launcher}")
    _, errors = ended(sweep, tmp_path)
    assert sweep.returncode == 2 and "Traceback" not in errors, errors
    found = trials(tmp_path / "sweep")
    assert [trial["status"] for trial in found] == ["completed"] * 2
    assert [trial["number"] for trial in found] == [0, 2]


def begun(folder, count=2):
    """Wait until that many trials have a checkpoint."""
    until = time.monotonic() + 200
    while len(list(folder.glob("*/checkpoints/last.ckpt"))) < count:
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_search_that_was_ended_goes_on(launcher, signum, code, tmp_path):
    words = ["search=grid", "search/pruner=none", "search.n_jobs=2", "search.study=s", "optimizer.lr=1e-3,1e-2"]
    words += [*SMALL, f"hydra/launcher={launcher}", "trainer.max_epochs=40"]
    search = started(tmp_path, *words)
    begun(tmp_path / "multirun" / "s")
    search.send_signal(signum)
    _, errors = ended(search, tmp_path)
    assert search.returncode == code and "Traceback" not in errors, errors
    search = started(tmp_path, *words)
    _, errors = ended(search, tmp_path)
    assert search.returncode == 0, errors
    found = trials(tmp_path / "multirun" / "s")
    assert [trial["status"] for trial in found] == ["completed"] * 2
    for trial in found:
        assert json.loads(Path(trial["run_dir"], "results.json").read_text())["epochs"] == 40


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_is_killed_is_begun_again(launcher, tmp_path):
    words = ["search=grid", "search/pruner=none", "search.n_jobs=2", "search.study=s", "optimizer.lr=1e-3,1e-2"]
    search = started(tmp_path, *words, *SMALL, f"hydra/launcher={launcher}", "trainer.max_epochs=40")
    folder = tmp_path / "multirun" / "s"
    begun(folder)
    psutil.Process(int((folder / "0" / ".lock").read_text().split()[1])).kill()
    _, errors = ended(search, tmp_path)
    assert search.returncode == 0, errors
    found = trials(folder)
    assert [trial["status"] for trial in found] == ["completed"] * 2
