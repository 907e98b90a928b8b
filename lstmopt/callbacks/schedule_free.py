"""The two sets of weights of an optimizer that averages them."""

from typing import Any

import pytorch_lightning as pl


class ScheduleFree(pl.Callback):
    """Train at the point where a schedule-free optimizer takes gradients; evaluate and save the average of the weights.

    Calls the optimizer's `train()` before each training batch and its `eval()` before validation, before tests of
    the trained weights, and at the end of each epoch, so that checkpoints of an epoch hold the weights that were
    evaluated. A fit that breaks leaves the weights that are trained. lstmopt's `ASGD` has both methods too; optimizers
    without them are left alone.

    Reference: Defazio et al. 2024, The road less scheduled.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Train."""
        _call(trainer, "train")

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Evaluate the average."""
        _call(trainer, "eval")

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Save the average, also without validation."""
        _call(trainer, "eval")

    def on_exception(self, trainer: pl.Trainer, *args: Any) -> None:
        """Leave the weights that are trained."""
        _call(trainer, "train")


def _call(trainer: pl.Trainer, mode: str) -> None:
    for optimizer in trainer.optimizers:
        if hasattr(optimizer, "train") and hasattr(optimizer, "eval"):
            getattr(optimizer, mode)()
