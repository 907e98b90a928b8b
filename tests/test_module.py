"""The LightningModule: random numbers of a step, and the loss that is logged."""

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from lstmopt.build import build
from lstmopt.conf_dir import conf_dir


def test_every_evaluation_of_a_line_search_sees_the_same_masks(tmp_path):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = ["optimizer=lbfgs", "model.dropout=0.5", "model.num_layers=2", "model.hidden_size=4"]
        overrides += ["data.input_length=8", "data.horizon=2", "callbacks=none", "logger=none"]
        cfg = compose("train", [*overrides, "trainer.limit_train_batches=3", "trainer.max_epochs=1"])
    parts, states = build(cfg, str(tmp_path)), {}
    loss = parts.module.training_loss

    def watched(batch):
        states.setdefault(parts.trainer.global_step, []).append(torch.get_rng_state())
        return loss(batch)

    object.__setattr__(parts.module, "training_loss", watched)
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    assert len(states) == 3 and all(len(seen) > 2 for seen in states.values())
    assert all(torch.equal(one, seen[0]) for seen in states.values() for one in seen)
    assert len({tuple(seen[0].tolist()) for seen in states.values()}) == 3


class Rows(pl.loggers.Logger):
    """Keeps the logged losses."""

    name, version = "rows", 0

    def __init__(self):
        super().__init__()
        self.losses = []

    def log_metrics(self, metrics, step=None):
        self.losses += [(step, metrics["train/loss"])] if "train/loss" in metrics else []

    def log_hyperparams(self, *_):
        pass


class BeforeEachStep(pl.Callback):
    """Computes the loss of each batch by itself, with the weights before the step; saves once within an epoch."""

    def __init__(self, path):
        self.path, self.losses, self.means = path, {}, []

    @torch.no_grad()
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        loss = module.task.loss(module(batch), batch).item()
        self.losses.setdefault(trainer.current_epoch, []).append((trainer.global_step, loss))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 1):
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer, module):
        self.means.append(trainer.callback_metrics["train/loss"].item())


def logged(folder, *overrides, module=None, checkpoint=None):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        small = ["data.input_length=8", "data.horizon=2", "model.hidden_size=4", "callbacks=none", "logger=none"]
        typed = [*small, "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.limit_train_batches=4"]
        cfg = compose("train", [*typed, *overrides])
    parts, rows, before = build(cfg, str(folder)), Rows(), BeforeEachStep(folder / "half.ckpt")
    parts.trainer.loggers = [rows]
    parts.trainer.callbacks.append(before)
    module = module or parts.module
    parts.trainer.fit(module, datamodule=parts.datamodule, ckpt_path=checkpoint, weights_only=True)
    return module, rows, before


LOGGED = {
    "lbfgs": ["optimizer=lbfgs"],
    "one batch per epoch": ["optimizer=lbfgs", "trainer.limit_train_batches=1"],
    "adam": ["optimizer=adam"],
    "accumulated": ["optimizer=adam", "trainer.accumulate_grad_batches=2"],
}


@pytest.mark.parametrize("case", LOGGED)
def test_a_batch_counts_with_its_loss_before_the_step(case, tmp_path):
    """However often the optimizer evaluates it; also in a second fit of the same module."""
    module = None
    for _ in range(2):
        module, rows, before = logged(tmp_path, *LOGGED[case], module=module)
        losses = [loss for epoch in before.losses.values() for loss in epoch]
        first = losses[:: 2 if case == "accumulated" else 1]  # a step has one point
        assert [step for step, _ in rows.losses] == [step for step, _ in first]
        assert [loss for _, loss in rows.losses] == pytest.approx([loss for _, loss in first], rel=1e-6)
        means = [sum(loss for _, loss in epoch) / len(epoch) for epoch in before.losses.values()]
        assert len(means) == 2 and before.means == pytest.approx(means, rel=1e-6)


def test_a_run_resumed_within_an_epoch_counts_each_batch_once(tmp_path):
    """Also on a module that has trained on the next batch before."""
    module, _, whole = logged(tmp_path, "optimizer=lbfgs")
    module._counted = 2  # as if the process had been stopped in the batch after the checkpoint
    _, _, resumed = logged(tmp_path, "optimizer=lbfgs", module=module, checkpoint=tmp_path / "half.ckpt")
    mean = sum(loss for _, loss in whole.losses[1]) / 4
    assert resumed.losses == {1: whole.losses[1][2:]} and resumed.means == pytest.approx([mean], rel=1e-6)
