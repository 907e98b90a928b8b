"""Seconds of training until a validation loss."""

import math
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch

WARM_UP = 3  # batches
METRIC = "val/loss"


class LossClock(pl.Callback):
    """Time a training until its `val/loss` is at most `target`; end it there, or as soon as it takes `most` seconds.

    Only batches are timed, from the moment in which one is asked for: validation and what is done between epochs are
    left out. The first three batches count as much as the others do on average. A loss of NaN ends the training too.

    Args:
        target: the loss.
        most: seconds.

    Attributes:
        looks: (seconds, loss) of each validation.
        reached: whether the last of them has the loss, in less than `most`.
        given_up: whether the training was ended because of its time.
    """

    def __init__(self, target: float, most: float = math.inf) -> None:
        self.target, self.most = target, most
        self.looks: list[tuple[float, float]] = []
        self.reached = self.given_up = False
        self._batches, self._first, self._others, self._since = 0, 0.0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        """Of the batches so far."""
        timed = self._batches - WARM_UP
        return self._others * self._batches / timed if timed > 0 else self._first

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The clock runs."""
        self._since = perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; give up where no later look can come in time."""
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        now = perf_counter()
        self._batches += 1
        if self._batches <= WARM_UP:
            self._first += now - self._since
        else:
            self._others += now - self._since
        self._since = now
        if self._others >= self.most:
            self.given_up = trainer.should_stop = True  # Lightning validates once more

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the loss."""
        loss = float(trainer.callback_metrics[METRIC])
        self.looks.append((self.seconds, loss))
        if loss <= self.target:
            self.reached = self.seconds < self.most
            self.given_up = not self.reached
        if loss <= self.target or math.isnan(loss):
            trainer.should_stop = True
        self._since = perf_counter()
