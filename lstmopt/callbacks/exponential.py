"""The exponential schedule."""

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler

from lstmopt.callbacks.lr_schedule import LRSchedule


class Exponential(LRSchedule):
    """Multiply the learning rate by `gamma` every epoch.

    Args:
        gamma: factor.
    """

    def __init__(self, gamma: float = 0.95) -> None:
        self.gamma = gamma

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """torch's `ExponentialLR`."""
        return ExponentialLR(optimizer, self.gamma)
