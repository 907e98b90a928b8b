"""Searches through the whole program: every engine, pruning, seeds, faults, restarts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import killing
import optuna
import psutil
import pytest
from omegaconf import OmegaConf

from lstmopt.conf_dir import conf_dir

SMALL = ["trainer.max_epochs=3", "trainer.limit_train_batches=3", "callbacks.picture=null", "logger=none"]
OTHERS = ("none", "ray_tune", "keras_tuner", "compare")  # no sampler of Optuna; they have tests of their own
ENGINES = [file.stem for file in sorted(Path(conf_dir(), "search").glob("*.yaml")) if file.stem not in OTHERS]
PRUNERS = [file.stem for file in sorted(Path(conf_dir(), "search", "pruner").glob("*.yaml"))]


def swept(program, *words, study="s"):
    done = program(*words, *SMALL, f"search.study={study}")
    path = program.folder / "multirun" / study / "sweep.json"
    return done, json.loads(path.read_text()) if path.is_file() else None


def test_engines_and_pruners_are_found():
    assert set(ENGINES) >= {"grid", "random", "tpe", "gp", "cmaes", "qmc", "nsga2", "hyperband"}
    assert set(PRUNERS) == {"none", "median", "asha", "hyperband", "wilcoxon", "arm"}


@pytest.mark.parametrize("engine", ENGINES)
def test_engine(engine, program):
    """Six trials in a shipped space; `scripts/check_search.py` has 12, and as many that no pruner gives up."""
    words = [f"search={engine}", "search/pruner=asha", "search.n_trials=6", "search/space=optimizers"]
    done, found = swept(program, "-m", *words, "model.hidden_size=8")
    assert done.returncode == 0, done.stderr
    states = Counter(trial["status"] for trial in found["trials"])
    assert sum(states.values()) == 6 and states["failed"] == 0 and states["completed"] >= 1
    assert states["pruned"] > 0
    different = len({json.dumps(trial["params"]) for trial in found["trials"]})
    assert different == 6 or (engine == "nsga2" and different >= 5)  # children may equal their parents
    for trial in found["trials"]:
        result = json.loads(Path(trial["run_dir"], "results.json").read_text())
        assert result["status"] == trial["status"] and not any(
            word.startswith("search") for word in result["overrides"]
        )
        assert trial["status"] == "pruned" or trial["value"] == result["best"]
    assert found["best"]["value"] == min(trial["value"] for trial in found["trials"] if trial["status"] == "completed")


def test_the_one_line_of_the_readme_and_what_it_leaves(program):
    words = ["optimizer=adam,rmsprop,sgd", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.hidden_size=8,16"]
    done, _ = swept(program, "search=tpe", *words, "search.n_trials=6", "search/pruner=none", study="line")
    assert done.returncode == 0, done.stderr
    folder = program.folder / "multirun" / "line"
    assert {path.name for path in folder.glob("*.png")} == {
        "history.png",
        "importance.png",
        "slice.png",
        "parallel.png",
    }
    assert (folder / "report.md").read_text().count("| completed |") == 6
    found = json.loads((folder / "sweep.json").read_text())
    again = program("--config-dir", str(folder), *SMALL, "experiment=best", "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    result = json.loads((program.folder / "again" / "results.json").read_text())
    assert result["best"] == found["best"]["value"]
    once_more = program(*found["best"]["overrides"], "hydra.run.dir=pasted")
    assert once_more.returncode == 0, once_more.stderr
    pasted = OmegaConf.load(program.folder / "pasted" / ".hydra" / "config.yaml")
    best = OmegaConf.load(program.folder / "again" / ".hydra" / "config.yaml")
    assert pasted.optimizer == best.optimizer and pasted.model == best.model


def test_a_grid_visits_each_point_once_and_no_more(program):
    done, found = swept(program, "search=grid", "optimizer=adam,sgd", "model.hidden_size=8,16,32", "search/pruner=none")
    assert done.returncode == 0, done.stderr
    points = {(trial["params"]["optimizer"], trial["params"]["model.hidden_size"]) for trial in found["trials"]}
    assert len(points) == 6 == len(found["trials"])


def test_several_objectives(program):
    words = ["search=nsga2", "search.n_trials=8", "model.hidden_size=8,32"]
    aims = "search.objectives=[val/loss,parameters:minimize]"
    done, found = swept(program, *words, aims, "optimizer.lr=tag(log,interval(1e-3,1e-1))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("several objectives cannot be pruned: search/pruner=none") == 1
    pairs = {trial["number"]: trial["values"] for trial in found["trials"]}
    better = lambda a, b: all(x <= y for x, y in zip(a, b, strict=True)) and a != b  # noqa: E731
    assert set(found["front"]) == {k for k, v in pairs.items() if not any(better(w, v) for w in pairs.values())}
    assert (program.folder / "multirun" / "s" / "front.png").is_file()


def test_seeds_and_their_pruner(program):
    words = ["search=grid", "search.seeds_per_trial=5", "optimizer.lr=1e-6,1e-5,1e-2"]
    done, found = swept(program, *words, "search/pruner=wilcoxon")
    assert done.returncode == 0, done.stderr
    for trial in found["trials"]:
        runs = sorted(Path(trial["run_dir"]).glob("*/results.json"))
        results = [json.loads(run.read_text()) for run in runs]
        assert [result["seed"] for result in results] == list(range(len(results)))
        if trial["status"] == "completed":
            assert len(results) == 5
            assert trial["value"] == pytest.approx(sum(result["best"] for result in results) / 5)
        else:
            assert trial["status"] == "pruned" and len(results) == 4
    assert any(trial["status"] == "pruned" for trial in found["trials"])


FAULTY = """
import torch
from lstmopt.models.lstm import LSTM


class Faulty(LSTM):
    def forward(self, *arguments, **options):
        if self.lstm.hidden_size == 3:
            raise RuntimeError("a planted fault")
        if self.lstm.hidden_size == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(*arguments, **options)
"""


def test_trials_that_fail_do_not_end_the_search(program, monkeypatch):
    (program.folder / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(program.folder))
    words = ["search=grid", "model._target_=faulty.Faulty", "plugins.allow=[faulty]", "search/pruner=none"]
    points = ["model.hidden_size=3,4,5,6,7,8", "optimizer.lr=1e-3,1e19", "optimizer=sgd"]
    done, found = swept(program, *words, *points, "search.max_failure_rate=1", "gradient_clip=none")
    assert done.returncode == 0, done.stderr
    assert len(found["trials"]) == 12
    for trial in found["trials"]:
        size, rate = trial["params"]["model.hidden_size"], trial["params"]["optimizer.lr"]
        assert trial["status"] == ("failed" if size in (3, 4) or rate > 1 else "completed"), trial
        said = (
            "planted fault"
            if size == 3
            else "out of memory"
            if size == 4
            else "NaN|nan|finite|is inf"
            if rate > 1
            else ""
        )
        assert any(word in trial["reason"] for word in said.split("|")), (size, rate, trial["reason"])
    assert "planted fault" in (program.folder / "multirun" / "s" / "report.md").read_text()
    done, _ = swept(program, *words, *points, "search.max_failure_rate=0.5", "gradient_clip=none")
    assert done.returncode == 2 and "8 of 12 trials failed" in done.stderr and "Traceback" not in done.stderr


def test_killed_and_typed_again_until_it_is_done(program):
    words = [*SMALL[1:], "trainer.max_epochs=8", "search=random", "search.n_trials=10", "search/space=optimizers"]
    folder = program.folder / "multirun"
    for pause in (2.0, 3.0, 2.5):
        pid = killing.start([*words, f"hydra.sweep.dir={folder}", "search.study=s"], program.folder / "log.txt")
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
        killing.ended(pid)
    done = program(*words, f"hydra.sweep.dir={folder}", "search.study=s")
    assert done.returncode == 0, done.stderr
    trials = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db").trials
    assert [trial.number for trial in trials] == list(range(10))
    assert all(trial.state.is_finished() for trial in trials)
    assert len({json.dumps(trial.params) for trial in trials}) == 10
    found = json.loads((folder / "sweep.json").read_text())
    assert len(found["trials"]) == 10
    for trial in found["trials"]:
        assert json.loads(Path(trial["run_dir"], "results.json").read_text())["status"] == trial["status"]


def at_work(program, n_jobs):
    """Two long trials, `n_jobs` of which have a checkpoint: what was typed, the process, the folder, what it says."""
    folder, log = program.folder / "multirun", program.folder / "log.txt"
    words = [*SMALL[1:], "trainer.max_epochs=30", "callbacks.early_stopping.patience=999", "search=grid", "seed=1,2"]
    words += [f"hydra.sweep.dir={folder}", "search/pruner=none", f"search.n_jobs={n_jobs}"]
    pid, until = killing.start(words, log), time.monotonic() + 100
    while len(list(folder.glob("*/checkpoints/last.ckpt"))) < n_jobs:
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    return words, pid, folder, log


def test_a_signal_leaves_a_trial_to_be_gone_on_with(program):
    words, pid, folder, log = at_work(program, 1)
    os.kill(pid, signal.SIGTERM)
    assert killing.ended(pid) == 143
    said = log.read_text()
    assert "the same command goes on from here" in said and "Traceback" not in said
    found = [json.loads((folder / "sweep.json").read_text())]
    assert program(*words, "search.timeout=1e-9").returncode == 0
    found.append(json.loads((folder / "sweep.json").read_text()))
    assert [[trial["status"] for trial in one["trials"]] for one in found] == [["stopped"], ["stopped"]]
    done = program(*words)
    assert done.returncode == 0, done.stderr
    assert any("going on from" in path.read_text() for path in folder.glob("*/output.log"))


def test_two_processes(program):
    words = ["search=random", "search.n_trials=6", "search.n_jobs=2", "model.hidden_size=8,16", "search/pruner=none"]
    command = [sys.executable, "-m", "lstmopt.train", *SMALL, *words, "search.study=s"]
    here = {"PYTHONPATH": str(Path(conf_dir()).parent)}
    done = subprocess.run(command, cwd=program.folder, env=os.environ | here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{program.folder}/multirun/s/study.db")
    assert Counter(trial.state.name for trial in study.trials) == {"COMPLETE": 6}
    assert len({trial.user_attrs["worker"] for trial in study.trials}) == 2


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_two_processes_end_with_the_first(signum, code, program):
    words, pid, folder, log = at_work(program, 2)
    workers = psutil.Process(pid).children()
    os.kill(pid, signum)
    assert killing.ended(pid) == code and len(workers) == 2
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert "Traceback" not in "".join(path.read_text() for path in [log, *folder.glob("*.log")])
    assert {json.loads(path.read_text())["status"] for path in folder.glob("*/results.json")} == {"stopped"}
    if signum == signal.SIGTERM:
        found = json.loads((folder / "sweep.json").read_text())["trials"]
        assert [trial["status"] for trial in found] == ["stopped", "stopped"]
    done = program(*words)
    assert done.returncode == 0, done.stderr
    assert "going on from" in (folder / "0" / "output.log").read_text()
    assert json.loads((folder / "0" / "results.json").read_text())["epochs"] == 30


def test_a_worker_that_is_killed(program):
    _, pid, folder, log = at_work(program, 2)
    psutil.Process(pid).children()[0].kill()
    assert killing.ended(pid) == 0, log.read_text()
    found = json.loads((folder / "sweep.json").read_text())["trials"]
    assert [trial["status"] for trial in found] == ["completed"] * 2 and len({t["value"] for t in found}) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["search=tpe", "optimizer.lr=fast", "model.hidden_size=8,16"], "optimizer.lr=fast"),
        (["search=tpe", "model.hiden_size=8,16"], "model.hiden_size"),
        (["search=grid", "optimizer=sgd,admw"], "type optimizer=adamw"),
        (["search=grid", "optimizer=sgd,adam", "optimizer.momentum=0.5,0.9"], "optimizer=adam: there is no key"),
        (["search=tpy"], "type search=tpe"),
        (["search=tpe", "search/pruner=ahsa"], "asha"),
        (["search=tpe", "search.n_trials=0"], "out of range"),
        (["search=tpe", "search.n_trails=5"], "search.n_trials"),
        (["search=tpe", "search.storage=study.db"], "not the URL of a database"),
        (["search=tpe", "search/pruner=wilcoxon"], "search.seeds_per_trial=5"),
        (["search=cmaes", "search/pruner=none", "search.objectives=[parameters,val/loss]"], "search=nsga2"),
        (["search=nsga2", "search.objectives=[parameters:smallest]"], "parameters:minimize or"),
        (["search=nsga2", "search.objectives=[speed]"], "nothing that a run measures"),
        (["search=nsga2", "search/pruner=asha", "search.objectives=[parameters,val/loss]"], "type search/pruner=none"),
        (["search=hyperband", "search.objectives=[parameters,val/loss]"], "type search/pruner=none"),
        (["search=tpe", "optimizer.lr=1e-2,1e-3", "search.objectives=[val/mae]"], "type monitor=val/mae mode=min, or"),
        (["search=tpe", "optimizer.lr=1e-2,1e-3", "search.objectives=[parameters]"], "\n  type search/pruner=none"),
        (["search=tpe", "optimizer.lr=interval(1,0.1)"], "low is less than high"),
        (["search=tpe", "search.study=../x"], "not the name of a file"),
    ],
)
def test_mistakes(words, said, program):
    done = program(*SMALL, *words)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 5
    assert not list(program.folder.glob("multirun/*/[0-9]*"))


def test_another_space_under_the_same_name_is_refused(program):
    assert swept(program, "search=random", "search.n_trials=1", "model.hidden_size=8,16")[0].returncode == 0
    done, _ = swept(program, "search=random", "search.n_trials=2", "model.hidden_size=8,32")
    assert done.returncode == 2 and "varies something else: model.hidden_size" in done.stderr


def test_a_space_of_which_nothing_exists_is_one_point(program):
    space = program.folder / "my" / "search" / "space"
    space.mkdir(parents=True)
    (space / "mine.yaml").write_text("optimizer.momentum: {low: 0.5, high: 0.9, when: {optimizer: sgd}}")
    words = ["--config-dir", "my", "search=random", "search/space=mine", "search.n_trials=1", "optimizer=adam"]
    done, found = swept(program, *words)
    assert done.returncode == 0, done.stderr
    assert [trial["params"] for trial in found["trials"]] == [{}]
