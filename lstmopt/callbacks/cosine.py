"""The cosine schedule."""

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from lstmopt.callbacks.lr_schedule import LRSchedule, total_steps


class Cosine(LRSchedule):
    """From the optimizer's learning rate down to `eta_min` along half a cosine over the run, step by step.

    Args:
        eta_min: the last rate.

    Reference: Loshchilov & Hutter 2017, SGDR (without restarts).
    """

    interval = "step"

    def __init__(self, eta_min: float = 0.0) -> None:
        self.eta_min = eta_min

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """torch's `CosineAnnealingLR` over the run's length."""
        return CosineAnnealingLR(optimizer, total_steps(trainer), self.eta_min)
