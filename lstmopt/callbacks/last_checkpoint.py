"""The checkpoint that a stopped run goes on from."""

import os
import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from lstmopt.errors import Interrupted


class LastCheckpoint(Checkpoint):
    """Write `last.ckpt` after every epoch, and when SIGINT or SIGTERM asks the run to stop.

    It is always the newest state, whatever the metric does. A signal is answered at the next batch after which
    a resumed run goes on exactly: no gradients are half accumulated and no validation is due. A second SIGINT
    ends the run at once. Being a `Checkpoint` callback, Lightning runs it after all others, so their states are
    up to date in the file.

    Args:
        dirpath: folder; None is `checkpoints` in the run folder.

    Raises:
        Interrupted: after the state was saved on a signal.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        super().__init__()
        self.dirpath = dirpath
        self.signum: int | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def state_key(self) -> str:
        """Nothing is kept; the key must not hold the folder."""
        return type(self).__name__

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over SIGINT and SIGTERM."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._handlers[signum] = signal.signal(signum, self._remember)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals back."""
        while self._handlers:
            signum, handler = self._handlers.popitem()
            signal.signal(signum, handler)

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signum = signum

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Answer a signal where the run can go on from exactly."""
        if self.signum is None:
            return
        loop = trainer.fit_loop.epoch_loop
        if not (
            loop.batch_progress.is_last_batch
            or trainer.fit_loop._should_accumulate()
            or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        ):
            self._stop(trainer, self.signum)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; answer a signal that came during validation."""
        if self.signum is not None:
            self._stop(trainer, self.signum)
        self.save(trainer)

    def _stop(self, trainer: pl.Trainer, signum: int) -> None:
        self.save(trainer)
        raise Interrupted(signum)

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt` so that a reader sees the old file or the new one, never a part."""
        folder = Path(self.dirpath or Path(trainer.default_root_dir) / "checkpoints")
        folder.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
        os.close(handle)
        try:
            trainer.save_checkpoint(part)
            os.replace(part, folder / "last.ckpt")
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
