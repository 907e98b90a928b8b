"""The cosine schedule."""

import math
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from lstmopt.callbacks.lr_schedule import LRSchedule, total_steps


class Cosine(LRSchedule):
    """From the optimizer's learning rate down to `eta_min` along half a cosine over the run, step by step.

    A run resumed with another length goes on, on the cosine of the new length; beyond the end the last rate stays.

    Args:
        eta_min: the last rate.

    Reference: Loshchilov & Hutter 2017, SGDR (without restarts).
    """

    interval = "step"

    def __init__(self, eta_min: float = 0.0) -> None:
        self.eta_min = eta_min

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """torch's `CosineAnnealingLR` over the run's length."""
        return _Cosine(optimizer, total_steps(trainer), self.eta_min)


class _Cosine(CosineAnnealingLR):
    """torch's schedule, but never up again beyond its end, and with its own length after a resume."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take everything but the length."""
        super().load_state_dict(state_dict | {"T_max": self.T_max})

    def get_lr(self) -> list[float | Tensor]:
        """The rate at this step, whatever it was before; after the last step `eta_min`."""
        height = (1 + math.cos(math.pi * min(self.last_epoch / self.T_max, 1.0))) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]
