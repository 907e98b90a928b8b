"""The checkpoint that a stopped run goes on from."""

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from lstmopt import run_folder
from lstmopt.checkpoint_file import CheckpointFile, keep_previous, sync_folder
from lstmopt.distributed import together
from lstmopt.errors import CheckpointError, Interrupted
from lstmopt.signals import SIGNALS

NAME, PREVIOUS = "last.ckpt", "previous.ckpt"


class LastCheckpoint(Checkpoint):
    """Write `last.ckpt` after every epoch, now and then within one, and when a signal asks the run to stop.

    It is always the newest state, whatever the metric does; the one before stays as `previous.ckpt`. Within an epoch it
    is written only after batches from which a resumed run goes on exactly: no gradients are half accumulated and no
    validation is due. SIGINT, SIGTERM and SIGUSR1 are answered at the next of them. A second SIGINT ends the run at
    once. Of several processes any may get the signal, and the first writes. Being a `Checkpoint` callback, Lightning
    runs it after all others, so their states are up to date in the file.

    Args:
        dirpath: folder; None is `checkpoints` in the run folder.
        every_n_steps: optimizer steps between two files within an epoch; None is none.
        every_n_seconds: seconds between two files, likewise.

    Raises:
        ConfigError: another run is at work in the folder, or it has too little room.
        Interrupted: after the state was saved on a signal.
        CheckpointError: the file cannot be written.
    """

    def __init__(
        self, dirpath: str | None = None, every_n_steps: int | None = None, every_n_seconds: float | None = 600.0
    ) -> None:
        super().__init__()
        self.dirpath, self.every_n_steps, self.every_n_seconds = dirpath, every_n_steps, every_n_seconds
        self.signum: int | None = None
        self._handlers: dict[int, Any] = {}
        self._saved_at = (0, 0.0)  # step and time
        self._uncounted = (0, 0)  # epochs and batches that Lightning counts and the file does not

    @property
    def state_key(self) -> str:
        """It must not hold the folder."""
        return type(self).__name__

    def state_dict(self) -> dict[str, Any]:
        """What the file leaves uncounted, if anything."""
        return {"uncounted": list(self._uncounted)} if any(self._uncounted) else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What is counted at the end of a run that has no batch to train."""
        epochs, batches = state_dict["uncounted"]
        self._uncounted = epochs, batches

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Make the folder this run's, remove what a killed one left half written, and have files written whole."""
        if stage != "fit":
            return
        trainer.strategy.checkpoint_io = CheckpointFile()
        folder = self._folder(trainer)
        if trainer.is_global_zero:
            key = "callbacks.last_checkpoint.dirpath" if self.dirpath else None
            needed = 3 * sum(p.nbytes for p in pl_module.parameters()) if key else 0
            run_folder.hold_checkpoints(folder, Path(trainer.default_root_dir), key, needed)
            try:
                for part in folder.glob("*.part"):
                    part.unlink()
            except OSError as error:
                raise CheckpointError(
                    f"cannot write to {folder}: {error.strerror}", f"type {key or 'hydra.run.dir'}=FOLDER"
                ) from error

    def _folder(self, trainer: pl.Trainer) -> Path:
        return Path(self.dirpath or Path(trainer.default_root_dir) / "checkpoints")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over the signals."""
        self._saved_at = trainer.global_step, time.monotonic()
        for signum in SIGNALS:
            self._handlers[signum] = signal.signal(signum, self._remember)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the signals and the folder back; count as the run that ended there, where this one had no batch left."""
        while self._handlers:
            signum, handler = self._handlers.popitem()
            if signal.getsignal(signum) == self._remember:  # after a run without errors Lightning has done so before
                signal.signal(signum, handler)
        if stage == "fit" and any(self._uncounted):
            self._count(trainer, 1)
            trainer.fit_loop.epoch_progress.current.completed += self._uncounted[0]
            self._uncounted = 0, 0
        if stage == "fit" and trainer.is_global_zero:
            run_folder.release_checkpoints(Path(trainer.default_root_dir))

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.signum == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.signum = signum

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save or answer a signal, where the run can go on from exactly."""
        self._uncounted = 0, 0
        due = int(self._due(trainer) and trainer.is_global_zero)
        signum, due = together.most(self.signum or 0, due) if trainer.world_size > 1 else [self.signum or 0, due]
        if not signum and not due:
            return
        loop = trainer.fit_loop.epoch_loop
        if not (
            loop.batch_progress.is_last_batch
            or trainer.fit_loop._should_accumulate()
            or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        ):
            self._save_or_stop(trainer, signum)

    def _due(self, trainer: pl.Trainer) -> bool:
        step, saved = self._saved_at
        if self.every_n_steps and trainer.global_step >= step + self.every_n_steps:
            return True
        return self.every_n_seconds is not None and time.monotonic() > saved + self.every_n_seconds

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save; answer a signal that came during validation.

        Lightning counts an epoch that was ended within, by `max_steps`, `max_time` or early stopping, as a whole one.
        In the file it is not, so that whoever goes on deals the rest of it.
        """
        signum = together.most(self.signum or 0)[0] if trainer.world_size > 1 else self.signum
        loop, cut = trainer.fit_loop.epoch_loop, int(cut_short(trainer))
        stopping, trainer.should_stop = trainer.should_stop, False
        validated = cut and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]
        trainer.should_stop = stopping
        self._uncounted = cut, int(validated)  # a resume comes by that validation, and counts its batch
        self._count(trainer, -1)
        try:
            self._save_or_stop(trainer, signum)
        finally:
            self._count(trainer, 1)
            self._uncounted = 0, 0

    def _count(self, trainer: pl.Trainer, sign: int) -> None:
        epochs, batches = self._uncounted
        for progress in (trainer.fit_loop.epoch_progress.current, trainer.fit_loop.epoch_progress.total):
            progress.processed += sign * epochs  # type: ignore[attr-defined]
        trainer.fit_loop.epoch_loop._batches_that_stepped += sign * batches

    def _save_or_stop(self, trainer: pl.Trainer, signum: int | None) -> None:
        self.save(trainer)
        if signum:
            raise Interrupted(signal.SIGTERM if signum == signal.SIGUSR1 else signum)

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last.ckpt`; a reader sees the old file or the new one, never a part."""
        folder = self._folder(trainer)
        last, new = folder / NAME, folder / "next.part"
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            if last.is_file():
                keep_previous(last, folder / PREVIOUS)
            os.replace(new, last)
            sync_folder(folder)
        self._saved_at = trainer.global_step, time.monotonic()


def cut_short(trainer: pl.Trainer) -> bool:
    """Whether the epoch that Lightning counts as the last was ended before its last batch."""
    epochs = trainer.fit_loop.epoch_progress.current
    counted = 0 < epochs.ready == epochs.processed  # type: ignore[attr-defined]
    return counted and not trainer.is_last_batch
