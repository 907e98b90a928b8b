"""The task's picture on TensorBoard."""

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from lstmopt.module import LSTMModule


class Picture(pl.Callback):
    """Draw the task's picture on validation data after validation, first epoch included, and on test data at the end.

    The last one is `picture.png` of a run; without this callback there is none.

    Another module than `LSTMModule` has no task, and nothing is drawn, which is said.

    Args:
        every_n_epochs: epochs between two pictures.
    """

    def __init__(self, every_n_epochs: int = 5) -> None:
        self.every_n_epochs = every_n_epochs

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where there is nothing to draw."""
        if not isinstance(pl_module, LSTMModule) and trainer.is_global_zero:
            print(f"picture: {type(pl_module).__name__} is no LSTMModule and has no task to draw", flush=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after the first validation of an epoch, if it is time and TensorBoard looks on."""
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        if trainer.val_check_batch is not None and trainer.fit_loop.epoch_loop.batch_idx >= trainer.val_check_batch:
            return
        if not isinstance(pl_module, LSTMModule):
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                part = trainer.datamodule.splits["val"]  # type: ignore[attr-defined]
                figure = pl_module.task.picture(pl_module.predict_batch, part)
                logger.experiment.add_figure("val/picture", figure, trainer.global_step - 1)  # as val/loss
