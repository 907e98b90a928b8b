"""What is tested, taken up again and told are this run's files, wherever they lie and whatever else lies there."""

import json
import math
import shutil
import signal

import killing
import pytest

from lstmopt.checkpoint_file import read
from lstmopt.search.objectives import outcome

SMALL = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "model.hidden_size=8"]
SMALL += ["callbacks.picture=null", "logger=none"]
BARE = [*SMALL[:-2], "logger=none", "callbacks=none"]
WORSE = ["optimizer=adam", "optimizer.lr=0.5", "gradient_clip=none", "data.batch_size=16", "seed=4"]


def results(folder):
    return json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)


def test_a_best_file_of_another_run_is_not_tested(program):
    assert program(*SMALL, "trainer.max_epochs=1", "hydra.run.dir=a").returncode == 0
    shutil.copytree(program.folder / "a", program.folder / "b")
    other = [*BARE, "trainer.max_epochs=1", "resume=none", "seed=5"]
    for folder in ("a", "fresh"):
        assert program(*other, f"hydra.run.dir={folder}").returncode == 0
    found, fresh = results(program.folder / "a"), results(program.folder / "fresh")
    assert found["checkpoint"] is None and found["metrics"] == fresh["metrics"]
    done = program(*other, "model.hidden_size=16", "hydra.run.dir=b")
    assert done.returncode == 0 and results(program.folder / "b")["checkpoint"] is None, done.stderr
    done = program(program.folder / "a", command="lstmopt.export")
    assert done.returncode == 2 and "kept no best.ckpt" in done.stderr


def test_checkpoints_in_folders_of_their_own(program):
    """Stopped in its fourth epoch, whose best is an earlier one; the same command goes on to the same end."""
    words = [*SMALL[:-2], *WORSE, "trainer.max_epochs=5", "logger=none", "callbacks=[last_checkpoint,best_checkpoint]"]
    assert program(*words, "hydra.run.dir=whole").returncode == 0
    whole = results(program.folder / "whole")
    assert whole["checkpoint"] == "checkpoints/best.ckpt"
    assert whole["best"] < whole["metrics"]["val/loss"], "the last epoch must not be the best"
    best, last = program.folder / "of the best", program.folder / "of the last"
    words += [f"hydra.run.dir={program.folder}/run", f"callbacks.best_checkpoint.dirpath='{best}'"]
    words += [f"callbacks.last_checkpoint.dirpath='{last}'"]
    pid = killing.start(words, program.folder / "log.txt", ("signal", "training_step", 3, 1, signal.SIGINT))
    assert killing.ended(pid) == 130
    done = program(*words)
    assert done.returncode == 0 and f"going on from {last / 'last.ckpt'}" in done.stdout, done.stderr
    found = results(program.folder / "run")
    assert found["checkpoint"] == str(best / "best.ckpt")
    assert all(found[key] == whole[key] for key in ("best", "metrics", "metrics_at_best", "epochs", "steps"))
    assert "is finished" in program(*words).stdout
    done = program(program.folder / "run", command="lstmopt.export")
    assert done.returncode == 0, done.stderr
    told = json.loads((program.folder / "run" / "export" / "model.json").read_text())
    assert told["steps"] == read(best / "best.ckpt")["global_step"] < found["steps"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_without_a_last_checkpoint_promises_nothing(signum, program):
    log = program.folder / "log.txt"
    words = [*BARE, "trainer.max_epochs=4", f"hydra.run.dir={program.folder}/run"]
    assert killing.run(words, log, ("signal", "training_step", 1, 1, signum)) == 128 + signum
    said = log.read_text()
    assert "nothing was saved, for callbacks.last_checkpoint is left out" in said and "goes on" not in said
    assert "Traceback" not in said and results(program.folder / "run")["status"] == "stopped"


def test_a_metric_that_overflows(program):
    words = [*SMALL, "optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "gradient_clip=none"]
    words += ["callbacks.gradient_clip.nonfinite=skip", "trainer.max_epochs=1"]
    done = program("-m", *words, "optimizer.lr=1e13,1e-3", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    sweep = program.folder / "sweep"
    assert results(sweep / "0")["best"] == "inf"
    told = json.loads((sweep / "sweep.json").read_text(), parse_constant=pytest.fail)
    assert [float(trial["value"]) for trial in told["trials"]] == [math.inf, results(sweep / "1")["best"]]
    assert told["best"]["number"] == 1
    assert outcome(sweep / "0", {"val/loss": "minimize"}).reason == "val/loss is inf"
    again = program(*words, "optimizer.lr=1e13", "hydra.run.dir=sweep/0")
    assert again.returncode == 0 and "is finished" in again.stdout, again.stderr


def test_a_run_with_a_damaged_results_file_is_tested_again(program):
    words = [*SMALL, "trainer.max_epochs=1", "hydra.run.dir=run"]
    assert program(*words).returncode == 0
    before = results(program.folder / "run")
    (program.folder / "run" / "results.json").write_text("")
    done = program(*words)
    assert done.returncode == 0, done.stderr
    found = results(program.folder / "run")
    assert all(found[key] == before[key] for key in ("status", "best", "metrics", "checkpoint", "steps"))
