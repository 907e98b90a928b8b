"""The step schedule."""

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from lstmopt.callbacks.lr_schedule import LRSchedule


class Step(LRSchedule):
    """Multiply the learning rate by `gamma` every `step_size` epochs.

    Args:
        step_size: epochs.
        gamma: factor.
    """

    def __init__(self, step_size: int = 10, gamma: float = 0.5) -> None:
        self.step_size, self.gamma = step_size, gamma

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """torch's `StepLR`."""
        return StepLR(optimizer, self.step_size, self.gamma)
