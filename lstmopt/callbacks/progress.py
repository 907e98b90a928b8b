"""The progress bar."""

import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class RunProgress(ProgressBar):
    """One bar for the whole run: epoch, loss, monitored metric, steps per second, time left.

    Where the output is not a terminal, one line per epoch. Loss and bar are refreshed at most every
    `refresh_seconds`, so that reading the loss does not hold up the steps.

    Args:
        monitor: the metric to show beside the loss.
        refresh_seconds: seconds between two refreshes.
    """

    def __init__(self, monitor: str = "val/loss", refresh_seconds: float = 0.25) -> None:
        super().__init__()
        self.monitor, self.refresh_seconds = monitor, refresh_seconds
        self.console = Console(file=sys.stdout)
        self.bar: Progress | None = None
        self._task: TaskID | None = None
        self._refreshed = 0.0
        self._began = (0.0, 0)

    def disable(self) -> None:
        """Show nothing more."""
        self._stop()

    def enable(self) -> None:
        """Nothing to do: the bar is made when training starts."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        self.console.print(*args, soft_wrap=True, markup=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the bar; a resumed run starts where it stood."""
        self._began = (time.monotonic(), trainer.global_step)
        if not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps  {task.fields[speed]:.0f}/s"),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,
        )
        total = trainer.estimated_stepping_batches
        self._task = self.bar.add_task("", total=total if total != float("inf") else None, speed=0.0)
        self.bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh now and then."""
        if self.bar is None or time.monotonic() - self._refreshed < self.refresh_seconds:
            return
        loss = float(outputs["loss"]) if isinstance(outputs, dict) and "loss" in outputs else float("nan")
        self._refresh(trainer, f"loss {loss:.4f}")

    def _refresh(self, trainer: pl.Trainer, text: str) -> None:
        assert self.bar is not None and self._task is not None
        self._refreshed = time.monotonic()
        self.bar.update(
            self._task,
            completed=trainer.global_step,
            speed=self._speed(trainer),
            description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}{self._monitored(trainer)}",
        )
        self.bar.refresh()

    def _speed(self, trainer: pl.Trainer) -> float:
        seconds = time.monotonic() - self._began[0]
        return (trainer.global_step - self._began[1]) / seconds if seconds else 0.0

    def _monitored(self, trainer: pl.Trainer) -> str:
        value = trainer.callback_metrics.get(self.monitor)
        return "" if value is None else f"  {self.monitor} {float(value):.4f}"

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Without a terminal: the epoch's line."""
        loss = trainer.callback_metrics.get("train/loss")
        text = "" if loss is None else f"loss {float(loss):.4f}"
        if self.bar is not None:
            self._refresh(trainer, text)
        elif self.is_enabled_here(trainer):
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {text}{self._monitored(trainer)}"
                f"  {self._speed(trainer):.0f} steps/s",
                flush=True,
            )

    def is_enabled_here(self, trainer: pl.Trainer) -> bool:
        """Only the first of several processes speaks."""
        return trainer.is_global_zero

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
