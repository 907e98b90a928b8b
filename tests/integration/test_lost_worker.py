"""A reading process that is killed: one message that names it, good files, and nobody left behind."""

import json
import os
import signal
import time

import psutil
import pytest
import torch

from lstmopt.errors import lost_worker
from lstmopt.module import LSTMModule

SHORT = ["trainer.max_epochs=9", "data.input_length=52", "data.horizon=4", "model.hidden_size=8", "data.batch_size=64"]


def kill_a_worker(folder, which):
    """Of the readers of training data, which came first; keep the number of every reader."""
    readers = sorted(child.pid for child in psutil.Process().children())
    (folder / "pids").write_text(" ".join(map(str, [readers[which], *readers])))
    os.kill(readers[which], signal.SIGKILL)


@pytest.mark.parametrize(("hook", "which"), [("training_step", 0), ("training_step", 1), ("validation_step", 0)])
def test_the_run_ends_with_one_message(hook, which, program, monkeypatch):
    plain = getattr(LSTMModule, hook)

    def step(self, batch, batch_idx):
        if self.current_epoch == 2 and batch_idx == 1 and not (program.folder / "pids").exists():
            kill_a_worker(program.folder, which)
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(LSTMModule, hook, step)
    done = program(*SHORT, "loader=workers", "hydra.run.dir=run")
    killed, *readers = (program.folder / "pids").read_text().split()
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"lstmopt: DataLoader worker {killed} "), done.stderr
    assert "out of memory" in lines[0] and "loader=resident" in lines[1] and "last.ckpt" in lines[1]
    assert json.loads((program.folder / "run" / "results.json").read_text())["status"] == "failed"
    assert torch.load(program.folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] in (1, 2)
    deadline = time.monotonic() + 10
    while left := [pid for pid in readers if psutil.pid_exists(int(pid))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    if which == 0:
        return
    monkeypatch.undo()
    done = program(*SHORT, "loader=workers", "hydra.run.dir=run")
    assert done.returncode == 0 and "going on from" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DataLoader worker (pid 12) is killed by signal: Killed. ", "worker 12 is killed by signal: Killed: "),
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", "worker 12, 13 exited unexpectedly: "),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...", "worker 7 is killed by"),
    ],
)
def test_what_torch_says_is_understood(text, words):
    assert words in lost_worker(RuntimeError(text))
    assert lost_worker(ValueError(text)) is None and lost_worker(RuntimeError("CUDA error")) is None
