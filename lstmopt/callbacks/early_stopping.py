"""Stopping when nothing gets better."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from lstmopt.callbacks.best_checkpoint import must_know

LIMITS = {
    EarlyStoppingReason.PATIENCE_EXHAUSTED: "patience",
    EarlyStoppingReason.STOPPING_THRESHOLD: "stopping_threshold",
    EarlyStoppingReason.DIVERGENCE_THRESHOLD: "divergence_threshold",
    EarlyStoppingReason.NON_FINITE_METRIC: "check_finite",
}


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, which stays stopped: a run that was killed after its end trains no further.

    A larger `patience` than that of the checkpoint lets it go on, or another threshold where that had ended it.

    Args:
        monitor: the metric, as `val/loss`.
        min_delta: a smaller change does not count.
        patience: validations without a better value.
        verbose: say what happens.
        mode: `min` or `max`.
        strict: fail where the metric does not exist.
        check_finite: stop at NaN or infinity.
        stopping_threshold: stop when this is reached.
        divergence_threshold: stop when it gets worse than this.
        check_on_train_epoch_end: look at the end of the epoch and not after each validation; None does so for a metric
            of training, and where each epoch has one validation.
        log_rank_zero_only: of several processes let the first one speak.

    Raises:
        ConfigError: the training ends before the metric is known.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        min_delta: float = 0.0,
        patience: int = 20,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        super().__init__(
            monitor,
            min_delta,
            patience,
            verbose,
            mode,
            strict,
            check_finite,
            stopping_threshold,
            divergence_threshold,
            check_on_train_epoch_end,
            log_rank_zero_only,
        )
        self._excused = False  # the first check may find no metric

    @property
    def stopped(self) -> bool:
        """Whether it has ended the training."""
        return self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED

    @property
    def limits(self) -> dict[str, Any]:
        """What ends the training; where one of these has changed, a run that it had ended goes on."""
        return {name: getattr(self, name) for name in LIMITS.values()}

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, its limits, and whether the training was stopped; `stopped_epoch` is 0 in the first epoch as
        well."""
        return super().state_dict() | self.limits | {"stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's, but with the patience of this run."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        if not stays_stopped(state_dict, self.limits):
            self.stopping_reason, self.stopped_epoch = EarlyStoppingReason.NOT_STOPPED, 0
        elif not self.stopped:  # a checkpoint of an older Lightning does not say why
            self.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle when to look; Lightning would look for a metric of training before it is known, and has no
        `val_check_interval` where that is a time."""
        if self._check_on_train_epoch_end is None:
            each_epoch = getattr(trainer, "val_check_interval", None) == 1.0 and trainer.check_val_every_n_epoch == 1
            self._check_on_train_epoch_end = each_epoch or self.monitor.startswith("train/")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where the checkpoint's run was stopped, this one is as well."""
        must_know(self.monitor, trainer)
        self._excused = bool(trainer.ckpt_path)
        if self.stopped:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's, but where the epoch was cut short: its metric is still that of the one before."""
        if trainer.is_last_batch:
            super().on_train_epoch_end(trainer, pl_module)

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        """Lightning's, but for a run that went on within an epoch and ends before that one's validation."""
        excused, self._excused = self._excused, False
        if self.monitor in trainer.callback_metrics or not excused:
            super()._run_early_stopping_check(trainer)


def state_of(checkpoint: dict[str, Any], monitor: str, mode: str) -> dict[str, Any] | None:
    """What a checkpoint holds of the early stopping by this metric."""
    state: dict[str, Any] | None = checkpoint.get("callbacks", {}).get(EarlyStopping(monitor, mode=mode).state_key)
    return state


def stopped_by(state: dict[str, Any]) -> str | None:
    """Which of its limits had ended the run of a checkpoint; None where none had.

    Args:
        state: of the callback, in the checkpoint.
    """
    reason = EarlyStoppingReason(state.get("stopping_reason", EarlyStoppingReason.NOT_STOPPED.value))
    if not state.get("stopped", bool(state["stopped_epoch"]) or reason is not EarlyStoppingReason.NOT_STOPPED):
        return None
    return LIMITS.get(reason, "patience")


def stays_stopped(state: dict[str, Any], limits: Mapping[str, Any]) -> bool:
    """Whether a run that goes on from a checkpoint has been stopped already.

    Args:
        state: of the callback, in the checkpoint.
        limits: of the run.
    """
    by = stopped_by(state)
    if by is None or by == "patience":
        return by is not None and limits["patience"] <= state["patience"]
    return bool(limits[by] == state.get(by, limits[by]))
