"""Epochs told to the process that started the run."""

import json
import os
import signal
import socket
from typing import IO, Any

import pytorch_lightning as pl

from lstmopt.errors import Pruned


class Reporting(pl.Callback):
    """After every epoch write `{"epochs": ..., "value": ...}` as a line to a socket, and do what the line says that
    comes back: `go`, or `stop`, which ends the run as a trial that was given up.

    Where the other end is gone the run ends as if it had been sent SIGTERM, after `last.ckpt` was saved. Without a
    channel nothing is done. With several processes the first asks, and all of them end.

    Args:
        channel: file descriptor of a connected stream socket that this process inherited.
        monitor: the metric that is told.

    Raises:
        Pruned: the answer was `stop`.
    """

    def __init__(self, channel: int | None = None, monitor: str = "val/loss") -> None:
        self.channel, self.monitor = channel, monitor
        self._files: tuple[IO[str], IO[str]] | None = None  # two: one that does both drops what it has read ahead

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Open the channel."""
        if self.channel is not None and self._files is None and trainer.is_global_zero:
            end = socket.socket(fileno=self.channel)
            self._files = end.makefile("r"), end.makefile("w")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell and ask."""
        value = trainer.callback_metrics.get(self.monitor)
        if self.channel is None or value is None:
            return
        epochs = trainer.current_epoch + 1
        hopeless = self._files is not None and self._asked(epochs, float(value)) == "stop"
        if trainer.strategy.broadcast(hopeless):
            raise Pruned(f"given up after {epochs} epochs")

    def _asked(self, epochs: int, value: float) -> str:
        assert self._files is not None
        answers, reports = self._files
        try:
            reports.write(json.dumps({"epochs": epochs, "value": value}) + "\n")
            reports.flush()
            answer = answers.readline().strip()
        except OSError:
            answer = ""
        if not answer:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    def state_dict(self) -> dict[str, Any]:
        """Nothing: whoever listens knows."""
        return {}
