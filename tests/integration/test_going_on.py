"""What a run that went on says of itself, and what a finished one answers to other settings."""

import csv
import json
import os
import random
import shutil
import signal
import time
from types import SimpleNamespace

import killing
import leavings
import pytest
import torch

from lstmopt import __version__
from lstmopt.callbacks import throughput
from lstmopt.checkpoint_file import FORMAT, damage, read, write
from lstmopt.search.objectives import value_of

SMALL = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", "model.hidden_size=8"]
SMALL += ["callbacks.picture=null", "callbacks.early_stopping=null", "logger=csv", "hydra.run.dir=run"]


def results(program):
    return json.loads((program.folder / "run" / "results.json").read_text())


def test_a_finished_run_is_not_the_answer_to_other_settings(program):
    words = [*SMALL, "trainer.max_epochs=1"]
    assert program(*words).returncode == 0
    before = results(program)
    for other in (["seed=7"], ["optimizer=adam"], ["seed=7", "optimizer.lr=0.5"]):
        done = program(*words, *other)
        assert done.returncode == 2 and other[0].split("=")[0] in done.stderr and "resume=none" in done.stderr
    for noise in (["trainer.max_epochs=1"], ["trainer.max_epochs=2"]):
        done = program(*words, "callbacks=[default,input_noise]", "callbacks.input_noise.std=5", *noise)
        assert done.returncode == 2 and "callbacks.input_noise" in done.stderr
    again = program(*words)
    assert again.returncode == 0 and "is finished" in again.stdout and results(program) == before


def test_a_finished_run_is_not_the_answer_to_other_data(program):
    numbers = [f"{(7 * k) % 24 + k / 100}" for k in range(300)]
    (program.folder / "a.csv").write_text("\n".join(["v", *numbers]) + "\n")
    (program.folder / "b.csv").write_text("\n".join(["v", *reversed(numbers)]) + "\n")
    words = [*SMALL[4:], "data=csv", "data.target=v", "data.input_length=8", "data.horizon=2", "trainer.max_epochs=1"]
    assert program(*words, "data.path=a.csv").returncode == 0
    before = results(program)
    done = program(*words, "data.path=b.csv")
    assert done.returncode == 2 and "the data have another content" in done.stderr, done.stderr
    (program.folder / "c.csv").write_bytes((program.folder / "a.csv").read_bytes())
    again = program(*words, "data.path=c.csv")  # the same data in another place
    assert again.returncode == 0 and "is finished" in again.stdout and results(program) == before


def test_a_run_that_max_steps_ended_goes_on_as_if_it_had_not(program):
    """Within an epoch of 14 batches, at its end, after the first of its two validations, and within another."""
    words = [word for word in SMALL[:-2] if "early_stopping" not in word]  # which counts validations
    words += ["data.batch_size=16", "trainer.max_epochs=3", "trainer.val_check_interval=0.5", "optimizer=adam"]
    words += ["lr_scheduler=reduce_on_plateau", "callbacks.lr_schedule.patience=0", "trainer.log_every_n_steps=1"]
    assert program(*words, "hydra.run.dir=whole").returncode == 0
    for steps, epochs in {9: 0, 14: 1, 21: 1, 23: 1}.items():
        done = program(*words, f"trainer.max_steps={steps}", "hydra.run.dir=run")
        assert done.returncode == 0, done.stderr
        assert (results(program)["steps"], results(program)["epochs"]) == (steps, epochs)
    assert program(*words, "hydra.run.dir=run").returncode == 0
    whole, found = (leavings.left(program.folder / name) for name in ("whole", "run"))
    assert whole["results"]["steps"] == 42 and [name for name in whole if whole[name] != found[name]] == []


def test_a_checkpoint_with_nothing_left_to_train_is_refused_elsewhere(program):
    words = [word for word in SMALL if "early_stopping" not in word and "hydra" not in word]
    words += ["trainer.max_epochs=12", "optimizer=adam", "optimizer.lr=0.3"]
    stop = "callbacks.early_stopping.stopping_threshold=100"
    assert program(*words, stop, "hydra.run.dir=run").returncode == 0
    steps = results(program)["steps"]
    there = "resume=run/checkpoints/last.ckpt"
    done = program(*words, stop, there, "hydra.run.dir=other")
    assert done.returncode == 2 and "stopped early after 1 epochs" in done.stderr
    assert "another callbacks.early_stopping.stopping_threshold" in done.stderr
    done = program(*words, f"trainer.max_steps={steps}", there, "hydra.run.dir=other")
    assert done.returncode == 2 and f"has made {steps} steps already" in done.stderr
    assert not (program.folder / "other").exists()
    on = program(
        *words, "callbacks.early_stopping.stopping_threshold=null", "trainer.max_epochs=2", "hydra.run.dir=run"
    )
    assert on.returncode == 0 and results(program)["epochs"] == 2, on.stderr


def test_no_validation_within_the_epochs_is_told_before_the_training(program):
    words = [*SMALL, "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=50"]
    done = program(*words)
    assert done.returncode == 2 and "ends the run before val/loss is first known" in done.stderr, done.stderr
    assert not (program.folder / "run").exists()


@pytest.mark.parametrize(
    ("how", "more", "said"),
    [
        (["callbacks.early_stopping.patience=1"], ["callbacks.early_stopping.patience=9"], "was stopped early after"),
        (["trainer.max_steps=20"], ["trainer.max_steps=30"], "is finished"),
    ],
)
def test_a_run_that_ended_before_its_last_epoch_has_ended(how, more, said, program):
    words = [word for word in SMALL if "early_stopping" not in word]
    words += ["trainer.max_epochs=12", "optimizer=adam", "optimizer.lr=0.3"]
    assert program(*words, *how).returncode == 0
    before = results(program)
    assert before["epochs"] < 12 and before["samples_per_second"]
    again = program(*words, *how)
    assert again.returncode == 0 and said in again.stdout and results(program) == before
    further = program(*words, *more)
    assert further.returncode == 0, further.stderr
    assert results(program)["steps"] > before["steps"]


def test_a_best_epoch_that_was_not_there_is_not_claimed(program):
    words = [*SMALL[:-1], "hydra.run.dir=run"]
    assert program(*words, "trainer.max_epochs=2").returncode == 0
    (program.folder / "run" / "checkpoints" / "best.ckpt").unlink()
    last = "resume=run/checkpoints/last.ckpt"
    done = program(*words[:-1], "trainer.max_epochs=4", last, "hydra.run.dir=other")
    assert done.returncode == 0 and "best of epochs 3 to 4 by val/loss" in done.stdout, done.stdout


def test_a_run_with_a_damaged_best_file_finds_its_way(program):
    """It goes on and says so; with nothing left to train it says what to type, and that works."""
    assert program(*SMALL, "trainer.max_epochs=2").returncode == 0
    best = program.folder / "run" / "checkpoints" / "best.ckpt"
    killing.damaged(best, "flip", random.Random(0))
    worse = ["trainer.max_epochs=4", "optimizer.lr=1e-30", "resume.allow=[optimizer.lr]"]
    done = program(*SMALL, *worse)
    assert done.returncode == 0 and "best of epochs 3 to 4 by val/loss" in done.stdout, done.stderr
    told = [line for line in done.stdout.splitlines() if "is damaged" in line]
    assert len(told) == 1 and told[0].endswith("the best epoch is looked for from epoch 3 on")
    killing.damaged(best, "flip", random.Random(1))
    finished = program(*SMALL, *worse)
    assert finished.returncode == 0 and "is finished" in finished.stdout
    (program.folder / "run" / "results.json").unlink()
    for _ in range(2):
        done = program(*SMALL, *worse)
        assert done.returncode == 2 and "no epoch is left to look for the best one in" in done.stderr
        assert "type trainer.max_epochs=8" in done.stderr and len(done.stderr.splitlines()) == 2
    done = program(*SMALL, *worse, "trainer.max_epochs=8")
    assert done.returncode == 0 and "best of epochs 5 to 8" in done.stdout, done.stderr


@pytest.mark.parametrize("which", ["last", "best"])
def test_two_runs_do_not_share_a_folder_of_checkpoints(which, program):
    """At the same time, where either typed the other's folder; one after the other, unless it is the same run."""
    key, shared = f"callbacks.{which}_checkpoint.dirpath", program.folder / "shared"
    words = [*SMALL[:-1], "logger=none"]
    options = ["trainer.max_epochs=4000", f"hydra.run.dir={program.folder}/a", f"{key}={shared}"]
    pid = killing.start([*words, *options], program.folder / "log.txt")
    try:
        while not (shared / f"{which}.ckpt").is_file():
            time.sleep(0.05)
        own = program.folder / "a" / "checkpoints"
        taken = shared if which == "last" else own
        other = [*words, "trainer.max_epochs=1", "hydra.run.dir=b"]
        there = [f"{key}=shared"] if which == "best" else [f"{key}=shared", "resume=none"]
        for typed in (there, [f"callbacks.best_checkpoint.dirpath={own}"]):
            done = program(*other, *typed)
            assert done.returncode == 2 and f"is in use by process {pid}" in done.stderr, done.stdout + done.stderr
            assert typed[0].split("=")[0] in done.stderr and len(done.stderr.splitlines()) == 2
            assert not (program.folder / "b").exists()
    finally:
        os.kill(pid, signal.SIGKILL)
        killing.ended(pid)
    assert damage(taken / "last.ckpt") is None and (shared / ".lock").is_file()
    content = (shared / f"{which}.ckpt").read_bytes()
    done = program(*other, f"{key}=shared", "seed=1")
    assert done.returncode == 2 and "belongs to another run" in done.stderr, done.stderr
    assert "seed is 0 there and 1 here" in done.stderr
    assert (shared / f"{which}.ckpt").read_bytes() == content and not (program.folder / "b").exists()
    if which == "best":
        assert "remove that file" in done.stderr
        assert program(*other, f"{key}=shared").returncode == 0  # the same run, begun anew
        assert not (shared / ".lock").exists() and not (program.folder / "b" / "checkpoints" / ".lock").exists()


def test_a_folder_of_checkpoints_that_may_not_be_written_to_is_refused(program):
    (program.folder / "file").write_text("")
    for which in ("last", "best"):
        key = f"callbacks.{which}_checkpoint.dirpath"
        done = program(*SMALL, f"{key}=file/here")
        assert done.returncode == 2 and "cannot write to" in done.stderr and f"type {key}=FOLDER" in done.stderr
        assert not (program.folder / "run").exists()


def test_a_folder_of_checkpoints_is_looked_at_for_room(monkeypatch, program):
    usage = shutil.disk_usage

    def full(path):
        return SimpleNamespace(free=1000) if "small" in str(path) else usage(path)

    monkeypatch.setattr("lstmopt.run_folder.shutil.disk_usage", full)
    for which in ("last", "best"):
        key = f"callbacks.{which}_checkpoint.dirpath"
        done = program(*SMALL, f"{key}=small")
        assert done.returncode == 2 and "small has room for 0.0" in done.stderr, done.stderr
        assert f"type {key}=FOLDER on another disk" in done.stderr and "epoch" not in done.stdout


def rewritten(path, **facts):
    content = read(path)
    content["run"] |= facts
    write(path, lambda file: torch.save(content, file))


def test_versions_that_differ_are_told_in_a_line(program):
    assert program(*SMALL, "trainer.max_epochs=1").returncode == 0
    last = program.folder / "run" / "checkpoints" / "last.ckpt"
    versions = read(last)["run"]["versions"]
    done = program(*SMALL, "trainer.max_epochs=2")
    assert done.returncode == 0 and "is not promised" not in done.stdout, done.stderr
    rewritten(last, versions=versions | {"torch": "1.0", "python": "2.7"})
    done = program(*SMALL, "trainer.max_epochs=3")
    here = f"python {versions['python']}, torch {versions['torch']}"
    told = f"going on with {here}; the checkpoint was written with python 2.7, torch 1.0: the same to the bit is not"
    assert done.returncode == 0 and done.stdout.count(told) == 1, done.stdout + done.stderr


def test_a_newer_format_is_refused(program):
    assert program(*SMALL, "trainer.max_epochs=1").returncode == 0
    last = program.folder / "run" / "checkpoints" / "last.ckpt"
    rewritten(last, format=99, versions={"lstmopt": "7.0.0"})
    for typed in ([], ["resume=run/checkpoints/last.ckpt", "hydra.run.dir=new"]):
        done = program(*SMALL[:-1], *(typed or SMALL[-1:]), "trainer.max_epochs=2")
        assert done.returncode == 2 and f"has format 99, written by lstmopt 7.0.0; this is lstmopt {__version__}" in (
            done.stderr
        )
        assert f"up to {FORMAT}" in done.stderr and "install lstmopt 7.0.0 or a newer one, or type resume=none" in (
            done.stderr
        )
    assert program(*SMALL, "trainer.max_epochs=2", "resume=none").returncode == 0


def test_a_sweep_in_the_folder_of_another_is_refused(program):
    words = ["-m", *SMALL[:-1], "trainer.max_epochs=1", "hydra.sweep.dir=sweep"]
    assert program(*words, "seed=0,1").returncode == 0
    done = program(*words, "seed=5,6")
    assert done.returncode == 2 and "seed is 0 there and 5 here" in done.stderr


def test_the_seconds_of_a_run_are_those_of_all_its_processes(program):
    words = [*SMALL, "trainer.max_epochs=6"]
    pid = killing.start(
        [*words, f"hydra.run.dir={program.folder}/run"],
        program.folder / "log.txt",
        ("signal", "training_step", 3, 1, signal.SIGTERM),
    )
    assert killing.ended(pid) == 143
    saved = torch.load(program.folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    stopped = results(program)["train_seconds"]
    assert 0 < saved["run"]["seconds"] <= stopped
    assert program(*words).returncode == 0
    assert results(program)["train_seconds"] > saved["run"]["seconds"]


def test_the_clock_of_a_run_that_goes_on_within_an_epoch(monkeypatch):
    moments = iter([5000.0, 5000.5])
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(moments))
    callback, trainer = throughput.Throughput(), SimpleNamespace(world_size=1, global_step=0)
    callback.on_train_start(trainer, None)
    callback.on_train_batch_end(trainer, None, None, (torch.zeros(8, 2, 1), torch.zeros(8)), 3)
    assert callback.samples_per_second == pytest.approx(16)


def test_metrics_at_the_best_epoch(program):
    for lr in (0.3, 1.0, 2.0, 3.0):  # at rates as high as these any epoch may be the best, on each kind of CPU another
        words = [*SMALL, "trainer.max_epochs=6", "optimizer=adam", f"optimizer.lr={lr}", "resume=none"]
        assert program(*words).returncode == 0
        result = results(program)
        with open(program.folder / "run" / "metrics.csv") as file:
            epochs = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        epochs = [row for row in epochs if "val/loss" in row]
        best = min(epochs, key=lambda row: row["val/loss"])
        if best is not epochs[-1]:
            break
    assert len(epochs) == 6 and best is not epochs[-1], "the last epoch must not be the best"
    assert result["metrics_at_best"] == pytest.approx({k: v for k, v in best.items() if k.startswith("val/")}, rel=1e-5)
    assert value_of(result, "val/mae") == pytest.approx(best["val/mae"], rel=1e-5)
    assert value_of(result, "val/loss") == result["best"] != result["metrics"]["val/loss"]
