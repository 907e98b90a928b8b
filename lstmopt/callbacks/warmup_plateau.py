"""The plateau schedule after a warm-up."""

from typing import Any, Literal

import pytorch_lightning as pl

from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau


class WarmupPlateau(ReduceLROnPlateau):
    """Up to the optimizer's learning rate in a straight line, step by step; then down on plateaus.

    Validations during the warm-up are not counted. torch's `SequentialLR` cannot hold a plateau schedule.

    Args:
        warmup_steps: optimizer steps until the full rate; the first step has 1 / `warmup_steps` of it.
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

    Reference: Goyal et al. 2017 (warm-up).
    """

    def __init__(
        self,
        warmup_steps: int = 100,
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
        super().__init__(monitor, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps)
        self.warmup_steps = warmup_steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the full rates where torch's schedules do, in the optimizer and so in its checkpoints."""
        super().on_train_start(trainer, pl_module)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self._warm_up(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """The rate of the next step."""
        self._warm_up(trainer)

    def _warm_up(self, trainer: pl.Trainer) -> None:
        if trainer.global_step < self.warmup_steps:
            for optimizer in trainer.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * (trainer.global_step + 1) / self.warmup_steps

    def _step(self, trainer: pl.Trainer) -> None:
        if trainer.global_step >= self.warmup_steps:
            super()._step(trainer)
