"""How fast the training is."""

import time
from typing import Any

import psutil
import pytorch_lightning as pl
from torch import Tensor


class Throughput(pl.Callback):
    """Samples per second of training, validation left out; logged per epoch as `throughput/samples_per_second`.

    Attributes:
        samples_per_second: over the whole run.
        seconds_to_first_step: from the start of the process to the end of the first optimizer step.
    """

    def __init__(self) -> None:
        self.seconds_to_first_step: float | None = None
        self._samples, self._seconds = 0, 0.0
        self._epoch = (0, 0.0)
        self._last = 0.0

    @property
    def samples_per_second(self) -> float | None:
        """Over the whole run so far."""
        return self._samples / self._seconds if self._seconds else None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._epoch, self._last = (self._samples, self._seconds), time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; the time between two ends holds loading and step."""
        now = time.perf_counter()
        self._samples += _size(batch)
        self._seconds += now - self._last
        self._last = now
        if self.seconds_to_first_step is None and trainer.global_step:
            self.seconds_to_first_step = time.time() - psutil.Process().create_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not count the validation."""
        self._last = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's speed."""
        seconds = self._seconds - self._epoch[1]
        if seconds:
            speed = {"throughput/samples_per_second": (self._samples - self._epoch[0]) / seconds}
            for logger in trainer.loggers:
                logger.log_metrics(speed, step=trainer.global_step)


def _size(batch: Any) -> int:
    """Samples in a batch: the first dimension of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return next((size for size in map(_size, parts) if size), 0)
