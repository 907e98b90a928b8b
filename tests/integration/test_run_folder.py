"""What belongs to a run: its folder, its checkpoints, and what it was made of."""

import multiprocessing
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import killing
import pytest
import torch
from leavings import curves, left
from random_runs import BASE, SERIES

from lstmopt.checkpoint_file import damage
from lstmopt.run_folder import unique

SMALL = [*BASE, *SERIES, "trainer.limit_train_batches=3"]


def checkpoint(folder, name="last"):
    return torch.load(Path(folder) / "checkpoints" / f"{name}.ckpt", weights_only=True)


def test_one_seed_one_hash_with_every_loader(program):
    """Twice the same, and with the data held in memory, in a cache, or read by 0, 1 and 2 processes."""
    ways = [[], ["loader=resident"], ["loader=cached", "loader.folder=cache"]]
    ways += [["loader=workers", f"loader.num_workers={count}"] for count in (0, 1, 2)]
    all_left = []
    for number, way in enumerate([[], *ways]):
        assert program(*SMALL, *way, f"hydra.run.dir={number}").returncode == 0
        found = left(program.folder / str(number))
        all_left.append({name: value for name, value in found.items() if name != "results"})
    assert all(one == all_left[0] for one in all_left[1:]), [
        name for one in all_left[1:] for name in one if one[name] != all_left[0][name]
    ]
    assert program(*SMALL, "seed=1", "hydra.run.dir=other").returncode == 0
    assert left(program.folder / "other")["last state_dict"] != all_left[0]["last state_dict"]


def test_last_is_last_where_nothing_gets_better(program):
    options = ["trainer.max_epochs=4", "callbacks.early_stopping.patience=99", "optimizer=sgd", "optimizer.lr=1e-30"]
    done = program(*SMALL, *options, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    epochs = {
        name: checkpoint(program.folder / "run", name)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        for name in ("best", "previous", "last")
    }
    assert epochs == {"best": 1, "previous": 3, "last": 4}


# what is typed when the run goes on: words of the answer
OTHERS = {
    "seed=1": ["seed is 0 there and 1 here", "resume.allow=[seed]"],
    "optimizer.lr=0.5": ["optimizer.lr is 0.01 there and 0.5 here", "resume.allow=[optimizer.lr]"],
    "optimizer=rmsprop": ["optimizer._target_", "RMSprop"],
    "model.hidden_size=8": ["model.hidden_size is 6 there and 8 here"],
    "model=layer_norm_lstm": ["model._target_"],
    "model.dropout=0.1": ["model.dropout"],
    "data.batch_size=16": ["data.batch_size"],
    "lr_scheduler=cosine": ["callbacks.lr_schedule"],
    "gradient_clip=value": ["callbacks.gradient_clip"],
    "trainer.accumulate_grad_batches=2": ["trainer.accumulate_grad_batches"],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert killing.run([*SMALL, "trainer.max_epochs=2", f"hydra.run.dir={folder}"], folder / "log.txt") == 0
    return folder


@pytest.mark.parametrize("typed", OTHERS)
def test_another_run_is_refused_by_name(typed, run, program):
    done = program(*SMALL, typed, f"resume={run}/checkpoints/last.ckpt", "hydra.run.dir=new")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "belongs to another run" in done.stderr and len(done.stderr.splitlines()) <= 5
    assert all(words in done.stderr for words in OTHERS[typed])
    assert not (program.folder / "new").exists()


def test_other_data_are_refused(program):
    rows = [f"{k},{(k * 7) % 11}" for k in range(400)]
    data = ["data=csv", "data.path=a.csv", "data.target=y", "data.input_length=8", "data.horizon=2"]
    options = [*BASE, *data, "hydra.run.dir=run"]
    (program.folder / "a.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    assert program(*options).returncode == 0
    rows[200] = "200,3.25"
    (program.folder / "a.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    done = program(*options, "trainer.max_epochs=4")
    assert done.returncode == 2 and "the data have another content" in done.stderr
    assert program(*options, "trainer.max_epochs=4", "resume.allow=[data]").returncode == 0


@pytest.mark.parametrize("schedule", ["none", "cosine callbacks.lr_schedule.eta_min=0.001", "one_cycle", "cyclic"])
def test_an_allowed_learning_rate_is_used(schedule, program):
    """Ten times the rate: every rate that is logged from there on is ten times that of the run without."""
    options = [*SMALL, *f"lr_scheduler={schedule}".split(), "optimizer.lr=0.003", "trainer.log_every_n_steps=1"]
    first = program(*options, "hydra.run.dir=a", "callbacks.last_checkpoint.every_n_steps=1")
    assert first.returncode == 0, first.stderr
    for name, more in (("same", []), ("new", ["optimizer.lr=0.03", "resume.allow=[optimizer]"])):
        stopped = killing.run(
            [*options, f"hydra.run.dir={program.folder / name}"],
            program.folder / "log.txt",
            ("training_step", 2, 0),
        )
        assert stopped == -9
        done = program(*options, *more, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    name = "lr-ScheduleFreeAdamW" if schedule == "none" else "lr-Adam"
    rates = {folder: dict(curves(program.folder / folder)[name]) for folder in ("a", "same", "new")}
    assert rates["same"] == rates["a"]
    for step, rate in rates["same"].items():
        assert rates["new"][step] == pytest.approx(10 * rate if step >= 6 else rate, rel=1e-5)
    assert not torch.equal(
        *(checkpoint(program.folder / name)["state_dict"]["task.head.weight"] for name in ("same", "new"))
    )


def test_a_schedule_cannot_change_within_a_run(run, program):
    typed = ["lr_scheduler=cosine", "resume.allow=[callbacks]", f"resume={run}/checkpoints/last.ckpt"]
    done = program(*SMALL, *typed, "hydra.run.dir=new")
    assert done.returncode == 2 and "cannot change within a run" in done.stderr


def test_a_run_killed_after_its_training_is_tested_when_it_goes_on(program):
    assert program(*SMALL, "hydra.run.dir=run").returncode == 0
    folder = program.folder / "run"
    whole = left(folder)
    (folder / "results.json").unlink()
    done = program(*SMALL, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert left(folder) == whole


def test_both_checkpoints_damaged_is_an_error(run, program):
    (program.folder / "run" / "checkpoints").mkdir(parents=True)
    for name in ("last", "previous"):
        (program.folder / "run" / "checkpoints" / f"{name}.ckpt").write_bytes(b"PK" * 1000)
    done = program(*SMALL, "hydra.run.dir=run")
    assert done.returncode == 2 and done.stderr.count("is damaged") == 2 and "resume=none" in done.stderr


def test_a_second_process_is_refused(program):
    log = program.folder / "log.txt"
    folder = program.folder / "run"
    pid = killing.start([*SMALL, "trainer.max_epochs=4000", f"hydra.run.dir={folder}"], log)
    try:
        while not (folder / "checkpoints" / "last.ckpt").is_file():
            time.sleep(0.05)
        before = {path.name: path.read_text() for path in (folder / ".hydra").glob("*")}
        done = program(*SMALL, "seed=3", "hydra.run.dir=run")
        assert done.returncode == 2 and f"in use by process {pid} on {os.uname().nodename}" in done.stderr
        assert all((folder / ".hydra" / name).read_text() == text for name, text in before.items())
    finally:
        os.kill(pid, signal.SIGKILL)
        killing.ended(pid)
    assert (folder / ".lock").is_file()
    assert program(*SMALL, "resume=none", "hydra.run.dir=run").returncode == 0  # a dead process holds nothing
    assert not (folder / ".lock").exists()


def test_starts_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    assert killing.starts_in_one_second(4, tmp_path) == []


def test_twenty_processes_find_twenty_folders(tmp_path):
    with multiprocessing.get_context("fork").Pool(20) as pool:
        made = pool.map(unique, [tmp_path / "12-00-00"] * 20, chunksize=1)
    assert len(set(made)) == 20 and all(path.is_dir() for path in made)


def test_starts_on_one_folder_have_one_winner(tmp_path):
    assert killing.starts_on_one_folder(4, tmp_path) == []


@pytest.fixture
def tmpfs(tmp_path):
    """A disk of 1.5 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder):
    with open(folder / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while ballast.write(b"0" * 1000):
            pass


def test_a_full_disk_loses_nothing(tmpfs, program):
    options = [*SMALL, "logger=none", f"hydra.run.dir={tmpfs}/run", "trainer.max_epochs=6", "callbacks.picture=null"]
    assert program(*options, "trainer.max_epochs=2").returncode == 0
    (tmpfs / "run" / "results.json").unlink()
    good = (tmpfs / "run" / "checkpoints" / "last.ckpt").read_bytes()
    fill(tmpfs)
    done = program(*options)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "No space left" in done.stderr and len(done.stderr.splitlines()) <= 5, done.stderr
    assert (tmpfs / "run" / "checkpoints" / "last.ckpt").read_bytes() == good
    assert not list((tmpfs / "run" / "checkpoints").glob("*.part"))
    (tmpfs / "ballast").unlink()
    assert program(*options).returncode == 0


def test_a_disk_that_gets_full_is_said_with_the_bytes(tmpfs, program):
    """Room at the start, and none at a later checkpoint."""
    options = [*SMALL, "logger=none", f"hydra.run.dir={tmpfs}/run", "trainer.max_epochs=400", "callbacks.picture=null"]
    pid = killing.start([*options, "callbacks.early_stopping.patience=999"], program.folder / "log.txt")
    while not (tmpfs / "run" / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.02)
    fill(tmpfs)
    assert killing.ended(pid) == 2
    said = (program.folder / "log.txt").read_text()
    assert "cannot write" in said and "MB are free" in said and "Traceback" not in said
    assert damage(tmpfs / "run" / "checkpoints" / "last.ckpt") is None
    assert not list((tmpfs / "run" / "checkpoints").glob("*.part"))


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_training(program):
    (program.folder / "file").write_text("")
    done = program(*SMALL, "hydra.run.dir=file/run")
    assert done.returncode == 2 and "cannot write to" in done.stderr and len(done.stderr.splitlines()) <= 5


def test_a_disk_that_is_read_only_is_refused_before_the_training(tmpfs, program):
    (tmpfs / "run").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    for folder in ("run", "new"):
        done = program(*SMALL, f"hydra.run.dir={tmpfs}/{folder}")
        assert done.returncode == 2 and "Read-only" in done.stderr and len(done.stderr.splitlines()) <= 5, done.stderr
        assert "epoch" not in done.stdout


def test_a_folder_that_vanishes_is_an_error(program):
    folder = program.folder / "run"
    options = [*SMALL, "logger=none", f"hydra.run.dir={folder}", "trainer.max_epochs=4000"]
    pid = killing.start([*options, "callbacks.early_stopping.patience=9999"], program.folder / "log.txt")
    while not (folder / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.02)
    folder.rename(program.folder / "elsewhere")  # at once: files made during a removal would keep the folder
    assert killing.ended(pid) == 2
    said = (program.folder / "log.txt").read_text()
    assert "cannot write" in said and "Traceback" not in said, said[-2000:]


def test_files_that_are_removed_during_a_run_are_an_error(program):
    folder = program.folder / "run"
    options = [*SMALL, "logger=none", f"hydra.run.dir={folder}", "trainer.max_epochs=200"]
    pid = killing.start([*options, "callbacks.early_stopping.patience=9999"], program.folder / "log.txt")
    while not (folder / "checkpoints" / "last.ckpt").is_file():
        time.sleep(0.02)
    (folder / ".lock").unlink()
    (folder / "config.yaml").unlink(missing_ok=True)
    assert killing.ended(pid) == 2
    said = (program.folder / "log.txt").read_text()
    assert "were removed during the run" in said and "Traceback" not in said, said[-2000:]
    assert not (folder / "results.json").is_file()


def test_curves_that_were_there_stay_when_a_run_is_refused(program):
    run = program.folder / "run"
    run.mkdir()
    (run / "events.out.tfevents.1.host").write_text("of another run")
    assert program("hydra.run.dir=run", "trainer.max_epochs=null").returncode == 2
    assert (run / "events.out.tfevents.1.host").read_text() == "of another run"
    refused = ["trainer.max_steps=1", "callbacks.picture=null"]  # after TensorBoard's file was made
    assert program("hydra.run.dir=other", *refused).returncode == 2
    assert not (program.folder / "other").exists()
