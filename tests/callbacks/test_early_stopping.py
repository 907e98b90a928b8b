"""A run that was stopped early stays so, unless its patience grows."""

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, fit

from lstmopt.callbacks.best_checkpoint import BestCheckpoint
from lstmopt.callbacks.early_stopping import EarlyStopping, state_of, stays_stopped, stopped_by
from lstmopt.callbacks.last_checkpoint import LastCheckpoint


def run(folder, losses, ckpt_path=None, epochs=9, **options):
    """Epochs trained in all, and the callback."""
    stopping, last = EarlyStopping(**options), LastCheckpoint()
    module = Foreign(val_losses=losses)
    _, trainer = fit(
        folder, stopping, last, module=module, epochs=epochs, ckpt_path=ckpt_path, enable_checkpointing=True
    )
    return trainer.current_epoch, stopping


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


def as_written_before(path, *keys):
    """The checkpoint as an older release wrote it, without these keys of early stopping."""
    content = torch.load(path, weights_only=True)
    (state,) = [state for key, state in content["callbacks"].items() if key.startswith("EarlyStopping")]
    for key in keys:
        del state[key]
    torch.save(content, path)


THRESHOLD = ([0.1] * 9, {"stopping_threshold": 0.5}, 1)  # in the first epoch
PATIENCE = ([1.0, 2.0, 2.0, 0.5, 2.0, 2.0, 2.0, 2.0, 2.0], {"patience": 2}, 3)
INFINITE = ([float("inf")] * 9, {}, 1)


@pytest.mark.parametrize(("losses", "options", "epochs"), [THRESHOLD, PATIENCE, INFINITE])
def test_what_was_stopped_stays_stopped(losses, options, epochs, tmp_path):
    found, stopping = run(tmp_path, losses, **options)
    assert found == epochs and stopping.stopped and stopping.state_dict()["stopped"] is True
    state = state_of(torch.load(last(tmp_path), weights_only=True), "val/loss", "min")
    assert stays_stopped(state, stopping.limits)
    patient = stopping.limits | {"patience": stopping.patience + 1}
    assert stays_stopped(state, patient) is (losses is not PATIENCE[0])
    again, stopping = run(tmp_path, losses, last(tmp_path), **options)
    assert again == epochs and stopping.stopped


@pytest.mark.parametrize(("losses", "options", "epochs"), [THRESHOLD, PATIENCE])
@pytest.mark.parametrize("keys", [["stopped"], ["stopped", "stopping_reason", "stopping_reason_message"]], ids=len)
def test_checkpoints_of_older_releases(keys, losses, options, epochs, tmp_path):
    run(tmp_path, losses, **options)
    as_written_before(last(tmp_path), *keys)
    again, stopping = run(tmp_path, losses, last(tmp_path), **options)
    if losses is PATIENCE[0] or len(keys) == 1:
        assert again == epochs and stopping.stopped
    else:  # a first epoch without a reason looks as if nothing had stopped: the threshold is reached once more
        assert again == epochs + 1 and stopping.stopped


def test_a_run_that_was_not_stopped_goes_on(tmp_path):
    assert run(tmp_path, PATIENCE[0], epochs=2, patience=2)[0] == 2
    state = state_of(torch.load(last(tmp_path), weights_only=True), "val/loss", "min")
    assert stopped_by(state) is None and not stays_stopped(state, {"patience": 2}) and state_of({}, "a", "min") is None
    found, stopping = run(tmp_path, PATIENCE[0], last(tmp_path), patience=2)
    assert found == 3 and stopping.stopped


def test_more_patience_goes_on(tmp_path):
    assert run(tmp_path, PATIENCE[0], patience=2)[0] == 3
    found, stopping = run(tmp_path, PATIENCE[0], last(tmp_path), patience=4)
    whole, _ = run(tmp_path / "whole", PATIENCE[0], patience=4)
    assert found == whole == 8 and stopping.stopped
    assert run(tmp_path, PATIENCE[0], last(tmp_path), patience=4)[0] == 8


def test_more_patience_does_not_go_past_a_threshold(tmp_path):
    losses, options, epochs = THRESHOLD
    run(tmp_path, losses, **options)
    assert run(tmp_path, losses, last(tmp_path), patience=99, **options)[0] == epochs


@pytest.mark.parametrize(
    ("case", "other", "by"),
    [
        (THRESHOLD, {"stopping_threshold": None}, "stopping_threshold"),
        (([3.0] * 9, {"divergence_threshold": 2.0}, 1), {"divergence_threshold": 9.0}, "divergence_threshold"),
        (INFINITE, {"check_finite": False}, "check_finite"),
    ],
)
def test_another_limit_goes_on(case, other, by, tmp_path):
    losses, options, epochs = case
    assert run(tmp_path, losses, **options)[0] == epochs
    assert stopped_by(state_of(torch.load(last(tmp_path), weights_only=True), "val/loss", "min")) == by
    assert run(tmp_path, losses, last(tmp_path), epochs=4, patience=9, **options | other)[0] == 4


def test_a_metric_that_does_not_exist_is_told_after_a_resume_too(tmp_path):
    run(tmp_path, [1.0] * 9, epochs=1)
    with pytest.raises(RuntimeError, match="val/los"):
        run(tmp_path, [1.0] * 9, last(tmp_path), epochs=4, monitor="val/los")


class TrainLoss(Foreign):
    """Logs a metric of training, which is known at the end of the epoch."""

    losses = [3.0, 1.0, 2.0, 1.5, 0.5, 0.7]

    def training_step(self, batch, batch_idx):
        if self.trainer.is_last_batch:
            self.log("train/loss", self.losses[self.current_epoch], on_epoch=True, on_step=False, batch_size=1)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    "options",
    [{"val_check_interval": 0.4}, {"check_val_every_n_epoch": 2}, {"val_check_interval": "01:00:00:00"}],
    ids=str,
)
def test_a_metric_of_training_is_looked_at_after_every_epoch(options, tmp_path):
    best, stopping = BestCheckpoint("train/loss"), EarlyStopping("train/loss", patience=2)
    _, trainer = fit(tmp_path, best, stopping, module=TrainLoss(), epochs=6, enable_checkpointing=True, **options)
    assert trainer.current_epoch == 4 and stopping.stopped  # after two that are worse than the second
    kept = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert float(best.best_model_score) == 1.0 and kept["global_step"] == 2 * STEPS_PER_EPOCH


def test_a_run_that_ends_before_the_metric_of_its_epoch_is_known(tmp_path):
    def part(steps, ckpt_path=None):
        callbacks = BestCheckpoint("train/loss"), EarlyStopping("train/loss"), LastCheckpoint()
        options = {"max_steps": steps, "val_check_interval": 0.4, "enable_checkpointing": True}
        return fit(tmp_path, *callbacks, module=TrainLoss(), epochs=6, ckpt_path=ckpt_path, **options)[1]

    part(6)
    assert part(8, last(tmp_path)).global_step == 8


def test_an_epoch_that_was_cut_short_does_not_count(tmp_path):
    stopping, options = EarlyStopping(patience=2), {"epochs": 9, "enable_checkpointing": True}
    fit(tmp_path, stopping, LastCheckpoint(), module=Foreign(val_losses=PATIENCE[0]), max_steps=7, **options)
    assert stopping.wait_count == 0
    assert run(tmp_path, PATIENCE[0], last(tmp_path), patience=2)[0] == PATIENCE[2]
