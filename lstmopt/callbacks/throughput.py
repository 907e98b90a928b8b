"""How fast the training is."""

import time
from typing import Any

import psutil
import pytorch_lightning as pl

from lstmopt.flops import BatchFlops, samples


class Throughput(pl.Callback):
    """Samples per second of training, validation left out; logged per epoch as `throughput/samples_per_second`.

    The operations of the first batch are counted while it runs (matrix products alone, see `lstmopt.flops`), so that
    `throughput/gflops_per_second` is logged beside it.

    Attributes:
        samples_per_second: over the whole run.
        gflops_per_second: the same in 1e9 floating-point operations, forward and backward.
        seconds_to_first_step: from the start of the process to the end of the first optimizer step.
    """

    def __init__(self) -> None:
        self.seconds_to_first_step: float | None = None
        self._samples, self._seconds = 0, 0.0
        self._epoch = (0, 0.0)
        self._last, self._validated = 0.0, False
        self._flops = BatchFlops()

    @property
    def samples_per_second(self) -> float | None:
        """Over the whole run so far."""
        return self._samples / self._seconds if self._seconds else None

    @property
    def gflops_per_second(self) -> float | None:
        """Over the whole run so far."""
        speed = self.samples_per_second
        return self._flops.per_sample * speed / 1e9 if self._flops.per_sample and speed else None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a run that goes on within an epoch does not begin one."""
        self._last, self._validated = time.perf_counter(), False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._epoch = self._samples, self._seconds
        self._last, self._validated = time.perf_counter(), False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the operations of the first batch; start the clock again after a validation within the epoch, and after
        what other callbacks do at its end."""
        if self._validated:
            self._last, self._validated = time.perf_counter(), False
        self._flops.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; the time between two ends holds loading and step."""
        self._flops.stop(batch)
        now = time.perf_counter()
        self._samples += samples(batch) * trainer.world_size
        self._seconds += now - self._last
        self._last = now
        if self.seconds_to_first_step is None and trainer.global_step:
            self.seconds_to_first_step = time.time() - psutil.Process().create_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not count the validation."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the epoch's speed."""
        self._flops.stop()
        seconds = self._seconds - self._epoch[1]
        if seconds:
            speed = {"throughput/samples_per_second": (self._samples - self._epoch[0]) / seconds}
            if self._flops.per_sample:
                speed["throughput/gflops_per_second"] = (
                    self._flops.per_sample * speed["throughput/samples_per_second"] / 1e9
                )
            for logger in trainer.loggers:
                logger.log_metrics(speed, step=trainer.global_step - 1)  # as val/loss

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave nothing behind."""
        self._flops.stop()
