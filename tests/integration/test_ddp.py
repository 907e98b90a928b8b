"""One model in two processes: the same training as in one process with all of the batch, however it is ended."""

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys

import killing
import numpy as np
import psutil
import pytest
import torch
from random_runs import BASE, BATCHES

DDP = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
SMALL = ["model.hidden_size=8", "logger=csv", "callbacks.picture=null", "callbacks.early_stopping=null"]
SERIES = ["data=mackey_glass", "data.length=330", "data.input_length=16", "data.horizon=3", *SMALL]

PARTS = ["data=npz", "data.val_fraction=0.21", "data.test_fraction=0.185"]  # of 81: 49, 17 and 15


def arrays(folder):
    """Sequences of unequal lengths, of which a batch of 16 leaves one: less than a sample for each process."""
    rng = np.random.default_rng(0)
    count = 81
    x, lengths = rng.random((count, 12, 3), dtype=np.float32), rng.integers(3, 13, count)
    np.savez(folder / "labels.npz", x=x, y=rng.integers(0, 4, (count, 12)), lengths=lengths)
    np.savez(folder / "classes.npz", x=x, y=np.arange(count) % 3, lengths=lengths)
    (folder / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)


CASES = {
    "forecasting": [*SERIES, "optimizer=adam"],
    "accumulated": [*SERIES, "memory=accumulate", "callbacks.memory.batches=2"],
    "classes": [*PARTS, "data.path=classes.npz", "task=classification", *SMALL],
    "tags": [*PARTS, "data.path=labels.npz", "task=tagging", "memory=recompute", *SMALL],
    "text": ["data=text", "data.path=book.txt", "data.sequence_length=10", "loader=workers", *SMALL],
}


def curves(folder):
    """Train and validation metrics per epoch, as they were logged."""
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name.startswith(("train/", "val/", "test/", "grad_norm/"))]
    return {name: [float(row[name]) for row in rows if row[name]] for name in names}


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one_with_the_doubled_batch(case, program):
    arrays(program.folder)
    options = [*CASES[case], "trainer.max_epochs=3", "trainer.log_every_n_steps=1"]
    two = program(*options, *DDP, "data.batch_size=8", "hydra.run.dir=two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("epoch 1/3") == 1
    one = program(*options, "trainer.accelerator=cpu", "data.batch_size=16", "hydra.run.dir=one")
    assert one.returncode == 0, one.stderr
    found, wanted = curves(program.folder / "two"), curves(program.folder / "one")
    assert found.keys() == wanted.keys() >= {"train/loss", "val/loss"}
    for name in wanted:
        assert len(wanted[name]) >= 3 or name.startswith("test/")
        assert found[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-7), name
    weights, alone = last(program.folder / "two")["state_dict"], last(program.folder / "one")["state_dict"]
    for name in alone:
        assert float((weights[name] - alone[name]).norm()) <= 1e-5 * float(alone[name].norm()), name
    result, single = (json.loads((program.folder / name / "results.json").read_text()) for name in ("two", "one"))
    assert result["steps"] == single["steps"] and result["epochs"] == 3
    assert result["metrics"] == pytest.approx(single["metrics"], rel=1e-5, abs=1e-6)
    name = result["baseline"]["name"]
    assert result["baseline"]["all"][name] == pytest.approx(single["baseline"]["all"][name], rel=1e-5)


RANDOM = [*BASE, *DDP, "data=mackey_glass", "data.input_length=8", "data.horizon=2", "data.length=700"]
RANDOM += ["data.batch_size=16", f"trainer.limit_train_batches={BATCHES}", "callbacks.last_checkpoint.every_n_steps=1"]


def test_a_killed_run_ends_as_one_that_was_not(tmp_path):
    """With dropout, whose masks are each process' own; the further process ends with the first."""
    kills = [("training_step", 0, 3), ("training_step", 2, 1)]
    differing, struck, output = killing.chain(RANDOM, kills, tmp_path)
    assert struck == 2 and not differing, output


@pytest.mark.parametrize("place", ["setup", "training_step", "test_step"])
def test_a_signal_to_the_first_process_saves_and_the_run_goes_on(place, tmp_path):
    differing, stopped, output = killing.signalled(RANDOM, place, signal.SIGTERM, random.Random(1), tmp_path)
    assert stopped and not differing, output


def started(folder, *arguments, **environment):
    """The program as a process of its own."""
    command = [sys.executable, "-m", "lstmopt.train", *arguments]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=os.environ | path | environment, **pipes)


LONG = [*SERIES, "data.batch_size=8", "trainer.max_epochs=4000"]


def test_a_further_process_that_is_killed_ends_the_run(tmp_path):
    first = started(tmp_path, *LONG, *DDP, "hydra.run.dir=run")
    for line in first.stdout:
        if line.startswith("epoch 2/"):
            break
    (further,) = psutil.Process(first.pid).children()
    further.kill()
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 1 and "local rank 1 was killed by signal 9" in errors and "Traceback" not in errors
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def tasks(folder, *arguments):
    """Two processes with what SLURM's srun would tell each of them."""
    job = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "4711"}
    job |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_STEP_ID": "0"}
    job |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [started(folder, *arguments, **job, SLURM_PROCID=rank, SLURM_LOCALID=rank) for rank in "01"]


def test_tasks_of_slurm_share_a_folder_and_go_on_when_the_job_is_requeued(tmp_path):
    words = ["trainer=slurm", "trainer.devices=2", "trainer.accelerator=cpu", *LONG]
    both = tasks(tmp_path, *words)
    for line in both[0].stdout:
        if line.startswith("epoch 2/"):
            break
    for task in both:
        task.send_signal(signal.SIGUSR1)
    said = [task.communicate(timeout=120) for task in both]
    assert [task.returncode for task in both] == [143, 143], said
    folder = tmp_path / "outputs" / "slurm-4711"
    assert json.loads((folder / "results.json").read_text())["status"] == "stopped"
    step = last(folder)["global_step"]
    both = tasks(tmp_path, *words[:-1], f"trainer.max_epochs={step // 18 + 2}")
    said = [task.communicate(timeout=120) for task in both]
    assert [task.returncode for task in both] == [0, 0], said
    assert "going on from" in said[0][0] and not said[1][0]
    result = json.loads((folder / "results.json").read_text())
    assert result["status"] == "completed" and result["steps"] > step
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["slurm-4711"]


def test_processes_of_others_need_a_common_folder(tmp_path):
    one = started(tmp_path, *LONG, *DDP, RANK="1", LOCAL_RANK="1", WORLD_SIZE="2")
    _, errors = one.communicate(timeout=60)
    assert one.returncode == 2 and "type hydra.run.dir=FOLDER" in errors and not list(tmp_path.iterdir())


def test_sweeps_and_searches_of_such_trainings(program):
    options = [*SERIES, *DDP, "data.batch_size=8"]
    done = program("-m", *options, "trainer.max_epochs=1", "optimizer=adam,sgd", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    found = json.loads((program.folder / "sweep" / "sweep.json").read_text())
    assert [trial["status"] for trial in found["trials"]] == ["completed"] * 2
    search = ["search=grid", "search.study=s", "optimizer.lr=1e-2,1e-7,1e-8", "trainer.max_epochs=3"]
    done = program(*search, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((program.folder / "multirun" / "s" / "sweep.json").read_text())
    ended = [trial["status"] for trial in found["trials"]]
    assert len(ended) == 3 and ended[0] == "completed" and "pruned" in ended


def test_what_cannot_work_is_told_at_once(program):
    refused = {
        ("trainer=ddp", "optimizer=lbfgs", "gradient_clip=none"): "type optimizer=adam",
        ("trainer=fsdp", "trainer.accelerator=cpu"): "type trainer=ddp",
        ("trainer.devices=2", "trainer.accelerator=cpu"): "trainer=ddp",
        ("trainer.strategy=ddp",): "trainer=ddp",
        ("trainer=slurm", "trainer.accelerator=cpu"): "type trainer=ddp",
    }
    for words, instead in refused.items():
        done = program(*words)
        assert done.returncode == 2 and instead in done.stderr and "Traceback" not in done.stderr, words
    assert not list(program.folder.iterdir())


def test_another_number_of_processes_is_another_run(program):
    options = [*SERIES, "data.batch_size=8", "hydra.run.dir=run"]
    assert program(*options, *DDP, "trainer.max_epochs=1").returncode == 0
    done = program(*options, "trainer.max_epochs=2")
    assert done.returncode == 2 and "trainer.devices is 2 there" in done.stderr
    done = program(*options, "trainer.max_epochs=2", "'resume.allow=[trainer]'".strip("'"))
    assert done.returncode == 0, done.stderr
