"""Stopping when nothing gets better."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping as LightningEarlyStopping


class EarlyStopping(LightningEarlyStopping):
    """Lightning's early stopping, which stays stopped: a run that was killed after its end trains no further.

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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where the checkpoint's run was stopped, this one is as well."""
        if self.stopped_epoch:
            trainer.should_stop = True
