"""The checkpoint of the best epoch."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from lstmopt import run_folder
from lstmopt.checkpoint_file import UNREADABLE, CheckpointFile, damage, keep_previous
from lstmopt.errors import CheckpointError, ConfigError
from lstmopt.module import LSTMModule

NAME = "best.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Keep `best.ckpt`, the epoch with the best monitored metric.

    A run that goes on from a checkpoint keeps the `best.ckpt` that lies beside it, in whatever folder that is now.
    Where none of that run lies there, or a damaged one, that is said, the best epoch is looked for anew, and
    `first_epoch` says from which on.

    Args:
        monitor: the metric, as `val/loss`.
        mode: `min` or `max`.
        dirpath: folder; None is `checkpoints` in the run folder.

    Raises:
        ConfigError: the training ends before the metric is known, or another run is at work in the folder.
        CheckpointError: `best.ckpt` was damaged, and no epoch was left to find the best one in.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", dirpath: str | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )
        self.first_epoch = 0
        self.own_folder = dirpath is not None
        self._brought: Path | None = None
        self._damaged: str | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder before Lightning does, and make it this run's alone; a metric of training is known at the
        end of an epoch only."""
        self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        if str(self.monitor).startswith("train/"):
            self._save_on_train_epoch_end = True
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")
            super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            key = "callbacks.best_checkpoint.dirpath" if self.own_folder else None
            needed = 3 * sum(p.nbytes for p in pl_module.parameters()) if key else 0
            run_folder.hold_checkpoints(Path(str(self.dirpath)), Path(trainer.default_root_dir), key, needed)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the folder back."""
        super().teardown(trainer, pl_module, stage)
        if stage == "fit" and trainer.is_global_zero:
            run_folder.release_checkpoints(Path(trainer.default_root_dir))

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, and the first epoch that was compared."""
        return super().state_dict() | {"first_epoch": self.first_epoch}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the state to this folder, so that Lightning takes it; it drops that of any other."""
        state = checkpoint["callbacks"].get(self.state_key)
        if state is None or trainer.ckpt_path is None:
            return
        here, beside = Path(str(self.dirpath)) / NAME, Path(trainer.ckpt_path).absolute().with_name(NAME)
        own = beside.parent.resolve() == here.parent.resolve()
        places = [here, beside] if state.get("dirpath") == self.dirpath and not own else [beside]
        score, kept, broken = state["best_model_score"], None, None
        if trainer.is_global_zero and score is not None:
            sealed = isinstance(trainer.strategy.checkpoint_io, CheckpointFile)
            for path in filter(Path.is_file, places):
                problem = damage(path) if sealed else None
                if problem:
                    broken = broken or f"{path} is damaged ({problem})"
                elif kept is None and (own or self._score(path) == float(score)):
                    kept = path
        kept, broken = trainer.strategy.broadcast((kept, broken))
        state["dirpath"] = self.dirpath
        if kept:
            self._brought = None if own or kept == here else kept
            state |= {
                "best_model_path": str(here),
                "kth_best_model_path": str(here),
                "best_k_models": {str(here): score},
            }
            return
        state |= {"best_model_path": "", "kth_best_model_path": "", "best_k_models": {}, "best_model_score": None}
        state["kth_value"] = self.kth_value
        if score is not None:
            first = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
            state["first_epoch"], self._damaged = first, broken
            if trainer.is_global_zero:
                problem = broken or f"best.ckpt of that run is not beside {trainer.ckpt_path}"
                print(f"{problem}: the best epoch is looked for from epoch {first + 1} on", flush=True)

    def _score(self, path: Path) -> float | None:
        """The score that a `best.ckpt` was kept for."""
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            return float(saved["callbacks"][self.state_key]["current_score"])
        except UNREADABLE:
            return None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's, the newest score, and the first epoch that was compared."""
        super().load_state_dict(state_dict)
        self.current_score = state_dict["current_score"]
        self.first_epoch = state_dict.get("first_epoch", 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the folder, and bring `best.ckpt` along from another one."""
        must_know(str(self.monitor), trainer)
        super().on_train_start(trainer, pl_module)
        if trainer.is_global_zero:
            folder = Path(str(self.dirpath))
            folder.mkdir(parents=True, exist_ok=True)
            if self._brought:
                keep_previous(self._brought, folder / NAME)
        self._brought = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's, but for a run that went on within an epoch and ends before the metric of that one is known."""
        if self.monitor in trainer.callback_metrics or not trainer.ckpt_path:
            super().on_train_epoch_end(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's; make sure that the best epoch was found again where its file was damaged."""
        super().on_fit_end(trainer, pl_module)
        if self._damaged and self.best_model_score is None:
            epochs, most = trainer.current_epoch, trainer.max_epochs or 0
            more = f"trainer.max_epochs={2 * epochs} to look for it in more epochs, or " if epochs >= most > 0 else ""
            raise CheckpointError(
                f"{self._damaged}, and no epoch is left to look for the best one in",
                f"type {more}resume=none to train anew",
            )


def must_know(monitor: str, trainer: pl.Trainer) -> None:
    """Make sure that `max_epochs` and `max_steps` leave time for a validation, or an epoch, that the monitored metric
    comes from.

    Raises:
        ConfigError: the training ends before.
    """
    every, batches = trainer.check_val_every_n_epoch, trainer.val_check_batch
    limit, epochs = trainer.max_steps, trainer.max_epochs
    epoch, per_step = trainer.num_training_batches, trainer.accumulate_grad_batches
    if monitor == "train/loss" and isinstance(trainer.lightning_module, LSTMModule):
        every, batches = 1, epoch
    elif not monitor.startswith("val/") or not trainer.enable_validation:
        return
    if not isinstance(batches, int) or not isinstance(epoch, int):  # by the clock, or nobody knows
        return
    first = (every - 1) * epoch + batches if every else batches
    if epochs is not None and 0 <= epochs * epoch < first:
        raise ConfigError(
            f"trainer.max_epochs={epochs} ends the run before {monitor} is first known, after {first} batches of"
            f" {epoch} an epoch",
            f"type trainer.max_epochs={-(-first // epoch)}, or a smaller trainer.val_check_interval",
        )
    full, rest = divmod(first, epoch)
    needed = full * -(-epoch // per_step) + -(-rest // per_step)
    if 0 <= limit < needed:
        raise ConfigError(
            f"trainer.max_steps={limit} ends the run before {monitor} is first known, after {needed} steps",
            f"type trainer.max_steps={needed}, or trainer.limit_train_batches={limit * per_step} for shorter epochs",
        )
