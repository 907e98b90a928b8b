"""Less of Lightning between two steps."""

import pytorch_lightning as pl

from lstmopt.lean_epoch_loop import LeanEpochLoop


class LeanLoop(pl.Callback):
    """Run Lightning's loop over batches without what a plain run does not use; see `LeanEpochLoop`.

    All hooks, logs, checkpoints and results stay what they are; a step costs less.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put the loop in place, before a checkpoint's state is restored."""
        loop = trainer.fit_loop.epoch_loop
        if stage == "fit" and not isinstance(loop, LeanEpochLoop):
            trainer.fit_loop.epoch_loop = LeanEpochLoop.of(loop)
