"""One step from several batches."""

import pytorch_lightning as pl

from lstmopt.errors import ConfigError


class GradientAccumulation(pl.Callback):
    """Add the gradients of `batches` batches up, divided by their number, before each optimizer step.

    Where all batches have as many labels, the step is that of one batch of all their sequences, at the memory of one.
    Elsewhere (unequal lengths, a smaller last batch) batches count alike, so that a label in a small one weighs more.
    The last group of an epoch may have fewer batches; their sum is divided by `batches` too, and is smaller than their
    mean. Lightning's own accumulation, set before anything asks how many steps the run has, so that schedules end where
    the run ends.

    Args:
        batches: batches per step.

    Raises:
        ConfigError: the Trainer accumulates as well, or the module steps its optimizers by itself.
    """

    def __init__(self, batches: int = 4) -> None:
        self.batches = batches

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Tell the Trainer, once."""
        if trainer.accumulate_grad_batches not in (1, self.batches):
            raise ConfigError(
                f"the Trainer accumulates {trainer.accumulate_grad_batches} batches already",
                "type trainer.accumulate_grad_batches=1 or memory=none",
            )
        trainer.accumulate_grad_batches = self.batches

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a module for which Lightning accumulates nothing."""
        if not pl_module.automatic_optimization:
            raise ConfigError(
                "with manual optimization Lightning accumulates no gradients",
                "type memory=none, or leave GradientAccumulation out and accumulate in training_step",
            )
