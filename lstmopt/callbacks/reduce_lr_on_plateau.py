"""The schedule that waits for a plateau."""

from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim import lr_scheduler

from lstmopt.errors import ConfigError

HOOK = "on_train_epoch_end"


class ReduceLROnPlateau(pl.Callback):
    """Multiply the learning rate by `factor` when the monitored metric has stopped to improve.

    torch's schedule, stepped here after each validation and kept in this callback's state, because Lightning would
    leave out one step at every resume. Without validation, or where the metric is one of training (`train/...`, or not
    known yet when validation ends), it is stepped at the end of each whole epoch, also after the module's own
    `on_train_epoch_end` where that logs it.

    Args:
        monitor: the metric, as `val/loss`.
        mode: `min` or `max`.
        factor: of the learning rate.
        patience: validations without an improvement that are borne; the next one reduces.
        threshold: an improvement is at least this large.
        threshold_mode: `rel` to the best value, or `abs`.
        cooldown: validations after a reduction in which nothing is counted.
        min_lr: lowest rate.
        eps: smaller changes of the rate are not made.

    Raises:
        ConfigError: the metric does not exist.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.5,
        patience: int = 5,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.monitor = monitor
        self.options: dict[str, Any] = {
            "mode": mode,
            "factor": factor,
            "patience": patience,
            "threshold": threshold,
            "threshold_mode": threshold_mode,
            "cooldown": cooldown,
            "min_lr": min_lr,
            "eps": eps,
        }
        self.schedulers: list[lr_scheduler.ReduceLROnPlateau] = []
        self._restored: list[dict[str, Any]] = []
        self._of_training = monitor.startswith("train/")
        self._of_epoch_end = False
        self._replaced: list[tuple[pl.LightningModule, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the schedules; a resumed run goes on with their saved states."""
        self.schedulers = [lr_scheduler.ReduceLROnPlateau(opt, **self.options) for opt in trainer.optimizers]
        for scheduler, state in zip(self.schedulers, self._restored, strict=False):
            scheduler.load_state_dict(state)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step after a validation that is part of a fit."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._of_training = self._of_training or self.monitor not in trainer.callback_metrics
        if not self._of_training:
            self._step(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step where validation does not give the metric, and nothing cut the epoch short."""
        if not trainer.is_last_batch or (not self._of_training and trainer.enable_validation):
            return
        self._of_epoch_end = self._of_epoch_end or self.monitor not in trainer.callback_metrics
        if self._of_epoch_end:  # Lightning calls the module's own hook after those of callbacks
            self._replaced.append((pl_module, vars(pl_module).get(HOOK)))
            object.__setattr__(pl_module, HOOK, partial(self._step_after, getattr(pl_module, HOOK), trainer))
        else:
            self._step(trainer)

    def _step_after(self, hook: Any, trainer: pl.Trainer) -> None:
        """In the place of the module's hook, once."""
        self._put_back()
        hook()
        self._step(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._put_back()

    def _put_back(self) -> None:
        while self._replaced:
            module, before = self._replaced.pop()
            object.__delattr__(module, HOOK)
            if before is not None:
                object.__setattr__(module, HOOK, before)

    def _step(self, trainer: pl.Trainer) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none"
            raise ConfigError(f"the plateau waits for {self.monitor}, which is not logged", f"logged are: {known}")
        for scheduler in self.schedulers:
            scheduler.step(float(value))

    def state_dict(self) -> dict[str, Any]:
        """The schedules' states, as plain numbers."""
        keep = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
        states = []
        for scheduler in self.schedulers:
            state = scheduler.state_dict()
            states.append({key: state[key] for key in keep if key in state})
        return {"schedulers": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the optimizers exist."""
        self._restored = state_dict["schedulers"]
