"""NaN in the loss through the whole program: one message, good files; or the run goes on."""

import json

import pytest
import torch

from lstmopt.module import LSTMModule

SHORT = ["trainer.max_epochs=3", "data.input_length=52", "data.horizon=4", "model.hidden_size=8", "data.batch_size=256"]
STEPS = 7  # per epoch


def break_steps(monkeypatch, bad):
    """The loss of these steps is NaN."""
    plain = LSTMModule.training_step

    def step(self, batch, batch_idx):
        loss = plain(self, batch, batch_idx)
        return loss * float("nan") if self.global_step in bad else loss

    monkeypatch.setattr(LSTMModule, "training_step", step)


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())


def checkpoints(run):
    saved = [torch.load(path, weights_only=True) for path in sorted((run / "checkpoints").glob("*.ckpt"))]
    assert all(finite(one["state_dict"]) and finite(one["optimizer_states"]) for one in saved)
    return saved


def test_the_default_ends_the_run_and_keeps_the_last_good_files(program, monkeypatch):
    break_steps(monkeypatch, {2 * STEPS + 1})
    done = program(*SHORT, "hydra.run.dir=run")
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) <= 5 and "Traceback" not in done.stderr
    assert f"step {2 * STEPS + 1} (epoch 3, batch 2): the loss is nan and the gradient norm nan" in lines[0]
    assert "learning rate 0.01" in lines[0] and "callbacks.gradient_clip.nonfinite=skip" in lines[1]
    best, last, *_ = checkpoints(program.folder / "run")
    assert best["global_step"] <= last["global_step"] == 2 * STEPS
    found = json.loads((program.folder / "run" / "results.json").read_text())
    assert found["status"] == "failed" and found["steps"] == 2 * STEPS + 1


OPTIMIZERS = ["adam", "lbfgs", "newton_cg", "natural_gradient", "kfac", "schedule_free", "muon", "soap"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_kind_of_optimizer_goes_back_and_goes_on(optimizer, program, monkeypatch):
    break_steps(monkeypatch, {1, STEPS + 2, STEPS + 4})
    typed = ["callbacks.gradient_clip.nonfinite=rollback", "hydra.run.dir=run", f"optimizer={optimizer}"]
    done = program(*SHORT, *typed)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("rollback ")]
    assert len(lines) == 3 and "back to the start of epoch 2 with half the rate" in lines[2]
    best, last, *_ = checkpoints(program.folder / "run")
    assert last["global_step"] == 3 * STEPS
    rate = last["optimizer_states"][0]["param_groups"][0]["lr"]
    first = torch.load(program.folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    guard = next(state for key, state in first["callbacks"].items() if "Gradient" in key)
    assert guard["rollbacks"] == 3 and finite(guard["good"]) and rate > 0


def test_skipping_goes_on(program, monkeypatch):
    break_steps(monkeypatch, {STEPS + 2})
    done = program(*SHORT, "callbacks.gradient_clip.nonfinite=skip", "gradient_clip=none", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "1 steps were left out" in done.stdout
    checkpoints(program.folder / "run")
