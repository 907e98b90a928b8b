"""Logs that cannot be written: one warning that names the folder, and the run ends as any other."""

import csv
import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

from lstmopt.loggers import RunCSV, RunTensorBoard
from lstmopt.module import LSTMModule

SHORT = ["trainer.max_epochs=3", "data.input_length=52", "data.horizon=4", "model.hidden_size=8", "data.batch_size=256"]
TYPED = {
    "tensorboard": ["logger=tensorboard", "callbacks.picture.every_n_epochs=1"],
    "csv": ["logger=csv", "logger.csv.flush_logs_every_n_steps=2", "data.batch_size=32"],
}


def run(program, logger, folder):
    typed = [*TYPED[logger], f"logger.{logger}.save_dir={folder}", "trainer.log_every_n_steps=1"]
    done = program(*SHORT, *typed, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    found = json.loads((program.folder / "run" / "results.json").read_text())
    assert found["status"] == "completed" and found["epochs"] == 3
    assert {"best.ckpt", "last.ckpt", "previous.ckpt"} == {
        path.name for path in (program.folder / "run" / "checkpoints").iterdir()
    }
    return done


def assert_one_warning(done, reason, folder):
    lines = [line for line in done.stderr.splitlines() if "Experiment logs directory" not in line]
    assert lines == [f"warning: logging is off, training goes on: {reason} ({folder})"], done.stderr
    assert "Traceback" not in done.stdout


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("logger", "left"), [("tensorboard", 0), ("tensorboard", 4096), ("tensorboard", 16384), ("csv", 0), ("csv", 4096)]
)
def test_full_disk(logger, left, program):
    small = program.folder / "small"
    with small_disk(small, "64k"):
        (small / "filler").write_bytes(b"x" * (65536 - left))
        done = run(program, logger, small)
        assert_one_warning(done, "No space left on device", small)


@pytest.mark.parametrize("logger", TYPED)
def test_a_disk_that_is_large_enough_is_no_reason_to_warn(logger, program):
    small = program.folder / "small"
    with small_disk(small, "8m"):
        done = run(program, logger, small)
        assert "warning" not in done.stderr
        if logger == "tensorboard":
            events = EventAccumulator(str(small), size_guidance={"scalars": 0}).Reload()
            assert len(events.Scalars("val/loss")) == 3 and "test/picture" in events.Tags()["images"]
            assert "_hparams_/session_start_info" in events.summary_metadata
        else:
            rows = list(csv.DictReader((small / "metrics.csv").open()))
            assert len([row for row in rows if row["val/loss"]]) == 3


@pytest.mark.parametrize("logger", TYPED)
def test_a_folder_that_vanishes(logger, program, monkeypatch):
    logs, plain = program.folder / "logs", LSTMModule.on_validation_epoch_end

    def vanish(self):
        plain(self)
        shutil.rmtree(logs, ignore_errors=True)

    monkeypatch.setattr(LSTMModule, "on_validation_epoch_end", vanish)
    done = run(program, logger, logs)
    assert_one_warning(done, "No such file or directory", logs)


def test_a_folder_that_cannot_be_made(program):
    (program.folder / "file").write_text("not a folder")
    for logger in TYPED:
        folder = program.folder / "file" / "logs"
        done = run(program, logger, folder)
        assert_one_warning(done, "Not a directory", folder)
        shutil.rmtree(program.folder / "run")


class Calls:
    """Raises from the n-th call on."""

    def __init__(self, after, function):
        self.after, self.function = after, function

    def __call__(self, *arguments, **options):
        self.after -= 1
        if self.after < 0:
            raise OSError(5, os.strerror(5))
        return self.function(*arguments, **options)


@pytest.mark.parametrize("after", [0, 1, 7, 40])
def test_event_files_that_raise(after, tmp_path, monkeypatch, capfd):
    import matplotlib.pyplot as plt

    before = threading.active_count()
    logger, append = RunTensorBoard(str(tmp_path)), Calls(after, LocalFileSystem.append)
    monkeypatch.setattr(LocalFileSystem, "append", lambda *arguments, **options: append(*arguments, **options))
    for step in range(50):
        logger.log_metrics({"a": 1.0}, step)
        if step % 10 == 0:
            logger.experiment.flush()
    logger.experiment.add_figure("f", plt.figure(), 1)
    logger.experiment.add_text("t", "text")
    logger.log_hyperparams({"a": 1}, {"m": 1.0})
    logger.log_graph(None)
    logger.finalize("success")
    logger.log_metrics({"a": 1.0}, 99)
    logger.log_result({"optimizer": "adam"}, {"val/loss": 1.0})
    logger.finalize("failed")
    assert logger.guard.off and threading.active_count() == before
    said = capfd.readouterr().err
    assert said == f"warning: logging is off, training goes on: Input/output error ({tmp_path})\n"


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_csv_file_that_raises(after, tmp_path, monkeypatch, capfd):
    logger = RunCSV(str(tmp_path), flush_logs_every_n_steps=2)
    write = Calls(after, csv.DictWriter.writerows)
    monkeypatch.setattr(csv.DictWriter, "writerows", lambda *arguments: write(*arguments))
    for step in range(20):
        logger.log_metrics({"a": 1.0}, step)
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    assert logger.guard.off
    lines = capfd.readouterr().err.splitlines()
    assert lines == [f"warning: logging is off, training goes on: Input/output error ({tmp_path})"]
