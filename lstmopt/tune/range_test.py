"""The learning-rate range test."""

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer


class RangeTest(pl.Callback):
    """Train while the learning rate grows from step to step by the same factor, and keep the losses.

    It ends after `steps` optimizer steps, or where the loss is NaN, infinite, or `limit` times the least smoothed one.
    It changes the weights: use a module that is thrown away afterwards.

    Args:
        low: rate of the first step.
        high: rate of the last one.
        steps: optimizer steps.
        limit: the smoothed loss, in units of the least so far, at which the test ends; None: it never does.

    Attributes:
        rates: of each step.
        losses: before each step, mean of the batches whose gradients it takes.

    Reference: Smith 2017, Cyclical learning rates for training neural networks.
    """

    def __init__(self, low: float = 1e-6, high: float = 10.0, steps: int = 140, limit: float | None = 4.0) -> None:
        self.low, self.high, self.steps, self.limit = low, high, steps, limit
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._sum: list[Tensor] = []
        self._smooth, self._least = 0.0, math.inf
        self._groups: list[tuple[Optimizer, dict[str, Any]]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The groups with the optimizer's own rate; a rate of another name, as Muon's `adamw_lr`, stays."""
        self._groups = [
            (optimizer, group)
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
            if group["lr"] == _own(optimizer) and group.get("use_muon", True)
        ]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of the next step, as if the optimizer had been made with it."""
        done = trainer.global_step / max(self.steps - 1, 1)
        rate = self.low * (self.high / self.low) ** done
        for optimizer, group in self._groups:
            group["lr"] = rate
            if "lr" in optimizer.defaults:
                optimizer.defaults["lr"] = rate
            if hasattr(optimizer, "base_lrs"):  # AdaBound's last rate follows its first
                optimizer.base_lrs = [rate] * len(optimizer.base_lrs)
        if len(self.rates) == trainer.global_step:
            self.rates.append(rate)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Keep the loss of a batch."""
        self._sum.append(loss.detach() * trainer.accumulate_grad_batches)  # Lightning divides by it

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a step: its loss, and whether to go on."""
        if trainer.global_step == len(self.losses):
            return
        self.losses.append(sum(float(loss) for loss in self._sum) / len(self._sum))
        self._sum = []
        count, loss = len(self.losses), self.losses[-1]
        self._smooth = 0.9 * self._smooth + 0.1 * loss
        smooth = self._smooth / (1 - 0.9**count)
        self._least = min(self._least, smooth)
        beyond = self.limit is not None and smooth > self.limit * self._least
        if not math.isfinite(loss) or beyond or count == self.steps:
            trainer.should_stop = True


def _own(optimizer: Optimizer) -> Any:
    return optimizer.defaults.get("lr", optimizer.param_groups[0]["lr"])
