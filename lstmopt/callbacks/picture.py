"""The task's picture on TensorBoard."""

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from lstmopt.module import LSTMModule


class Picture(pl.Callback):
    """Draw the task's picture on validation data after validation, first epoch included.

    Args:
        every_n_epochs: epochs between two pictures.
    """

    def __init__(self, every_n_epochs: int = 5) -> None:
        self.every_n_epochs = every_n_epochs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, if it is time and TensorBoard looks on."""
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, LSTMModule):
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                part = trainer.datamodule.splits["val"]  # type: ignore[attr-defined]
                figure = pl_module.task.picture(pl_module.predict_batch, part)
                logger.experiment.add_figure("val/picture", figure, trainer.global_step)
