"""Trials that are given up early."""

from typing import Any

import pytorch_lightning as pl
from optuna.pruners import BasePruner
from optuna.trial import Trial

from lstmopt.errors import Pruned


class Pruning(pl.Callback):
    """Report the monitored metric to an Optuna study after every epoch, and end the run where its pruner says so.

    The trial is given as an object, or, to a process of its own, by the storage, the study and its number. Without a
    trial nothing is done. With several processes the first reports and decides, and all of them end. After the last
    epoch there is nothing left to save: the value is reported, and the trial counts as completed.

    Args:
        trial: an Optuna trial, or the number of one.
        storage: URL of the study's database, where `trial` is a number.
        study: the study's name, where `trial` is a number.
        pruner: what decides, where `trial` is a number.
        monitor: the metric to report; its step is the number of epochs trained.

    Raises:
        Pruned: the trial is not worth going on with.
    """

    def __init__(
        self,
        trial: Trial | int | None = None,
        storage: str | None = None,
        study: str | None = None,
        pruner: BasePruner | None = None,
        monitor: str = "val/loss",
    ) -> None:
        self.trial, self.storage, self.study = trial, storage, study
        self.pruner, self.monitor = pruner, monitor

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the trial."""
        if isinstance(self.trial, int) and trainer.is_global_zero:
            from lstmopt.search.study import reopened

            assert self.storage is not None and self.study is not None
            self.trial = reopened(self.storage, self.study, self.trial, self.pruner)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report and ask."""
        value = trainer.callback_metrics.get(self.monitor)
        if self.trial is None or value is None:
            return
        hopeless = False
        if isinstance(self.trial, Trial) and len(self.trial.study.directions) == 1:  # Optuna prunes no others
            epochs = trainer.current_epoch + 1
            if epochs not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:
                self.trial.report(float(value), step=epochs)
            hopeless = not self._ends(trainer) and self.trial.should_prune()
        if trainer.strategy.broadcast(hopeless):
            raise Pruned(f"given up after {trainer.current_epoch + 1} epochs")

    @staticmethod
    def _ends(trainer: pl.Trainer) -> bool:
        """Whether the run ends here by itself."""
        full = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        return trainer.should_stop or full

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the study knows."""
        return {}
