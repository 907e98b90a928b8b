"""The cosine schedule after a warm-up."""

import math
from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lstmopt.callbacks.lr_schedule import LRSchedule, total_steps


class WarmupCosine(LRSchedule):
    """Up to the optimizer's learning rate in a straight line, then down to `eta_min` along half a cosine, step by step.

    The cosine ends with the run. A run resumed with another length goes on, on the cosine of the new length; beyond
    the end the last rate stays.

    Args:
        warmup_steps: optimizer steps until the full rate; the first step has 1 / `warmup_steps` of it.
        eta_min: the last rate.

    Reference: Goyal et al. 2017 (warm-up); Loshchilov & Hutter 2017 (cosine).
    """

    interval = "step"

    def __init__(self, warmup_steps: int = 100, eta_min: float = 0.0) -> None:
        self.warmup_steps, self.eta_min = warmup_steps, eta_min

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """A factor of each group's own rate."""
        total = total_steps(trainer)

        def factor(base: float, step: int) -> float:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            done = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
            last = self.eta_min / base
            return last + (1 - last) * (1 + math.cos(math.pi * done)) / 2

        bases = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
        return _Lambda(optimizer, [lambda step, base=base: factor(base, step) for base in bases])  # type: ignore[misc]


class _Lambda(LambdaLR):
    """torch's `LambdaLR` whose state is its clock; the factors follow from the options and the run's length."""

    def state_dict(self) -> dict[str, Any]:
        """The state without the functions."""
        return {key: value for key, value in super().state_dict().items() if key != "lr_lambdas"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the clock."""
        self.__dict__.update(state_dict)
