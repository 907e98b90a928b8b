"""Stopping when nothing gets better."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, which stays stopped: a run that was killed after its end trains no further.

    The arguments are Lightning's.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where the checkpoint's run was stopped, this one is as well."""
        if self.stopped_epoch:
            trainer.should_stop = True
