"""Stopping when nothing gets better."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from lstmopt.callbacks.best_checkpoint import must_know


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, which stays stopped: a run that was killed after its end trains no further.

    A larger `patience` than that of the checkpoint lets it go on.

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
        check_on_train_epoch_end: look at the end of the epoch and not after each validation.
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

    @property
    def stopped(self) -> bool:
        """Whether it has ended the training."""
        return self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, and whether the training was stopped; `stopped_epoch` is 0 in the first epoch as well."""
        return super().state_dict() | {"stopped": self.stopped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's, but with the patience of this run."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        if not stays_stopped(state_dict, patience):
            self.stopping_reason, self.stopped_epoch = EarlyStoppingReason.NOT_STOPPED, 0
        elif not self.stopped:  # a checkpoint of an older Lightning does not say why
            self.stopping_reason = EarlyStoppingReason.PATIENCE_EXHAUSTED

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where the checkpoint's run was stopped, this one is as well."""
        must_know(self.monitor, trainer)
        if self.stopped:
            trainer.should_stop = True

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        """Lightning's, but for a run that went on within an epoch and ends before that one's validation."""
        if self.monitor in trainer.callback_metrics or not trainer.ckpt_path:
            super()._run_early_stopping_check(trainer)


def stopped_early(checkpoint: dict[str, Any], patience: int) -> bool:
    """Whether the run of a checkpoint was stopped early, and a run with this patience would be at once."""
    states = checkpoint.get("callbacks", {})
    return any(stays_stopped(state, patience) for key, state in states.items() if key.startswith("EarlyStopping"))


def stays_stopped(state: dict[str, Any], patience: int) -> bool:
    """Whether a run that goes on from a checkpoint has been stopped already.

    Args:
        state: of the callback, in the checkpoint.
        patience: of the run.
    """
    reason = state.get("stopping_reason", EarlyStoppingReason.NOT_STOPPED.value)
    stopped = state.get("stopped", bool(state["stopped_epoch"]) or reason != EarlyStoppingReason.NOT_STOPPED.value)
    for_good = reason not in (EarlyStoppingReason.NOT_STOPPED.value, EarlyStoppingReason.PATIENCE_EXHAUSTED.value)
    return bool(stopped) and (for_good or patience <= state["patience"])
