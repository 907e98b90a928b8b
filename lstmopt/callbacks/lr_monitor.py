"""The learning rate on TensorBoard."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor


class LRMonitor(LearningRateMonitor):
    """Lightning's `LearningRateMonitor`, but a step is logged once, however many batches it takes, and where nothing is
    logged it keeps still instead of ending the run.

    Args:
        logging_interval: `step`, `epoch`, or None: as the schedule steps.
        log_momentum: momentum too.
        log_weight_decay: weight decay too.
    """

    def on_train_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Find out what there is to log."""
        self._logged = -1
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log per step."""
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if trainer.loggers and step != self._logged:
            self._logged = step
            super().on_train_batch_start(trainer, *args, **kwargs)

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Log per epoch."""
        if trainer.loggers:
            super().on_train_epoch_start(trainer, *args, **kwargs)
