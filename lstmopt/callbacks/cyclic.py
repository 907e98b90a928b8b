"""The cyclical schedule."""

from typing import Literal

import pytorch_lightning as pl
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler

from lstmopt.callbacks.lr_schedule import LRSchedule, cycles_momentum


class Cyclic(LRSchedule):
    """Up and down between two learning rates again and again, step by step.

    Args:
        base_lr: lowest rate; None is a tenth of the optimizer's.
        max_lr: highest rate; None is the optimizer's.
        step_size_up: steps from lowest to highest, and as many back.
        mode: `triangular`; `triangular2` halves the height each cycle; `exp_range` multiplies it by `gamma` each step.
        gamma: for `exp_range`.
        cycle_momentum: let the momentum fall while the rate rises; off where the optimizer has none.
        base_momentum: momentum at the highest rate.
        max_momentum: momentum at the lowest rate.

    Reference: Smith 2017, Cyclical learning rates.
    """

    interval = "step"

    def __init__(
        self,
        base_lr: float | None = None,
        max_lr: float | None = None,
        step_size_up: int = 200,
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        gamma: float = 1.0,
        cycle_momentum: bool = False,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
    ) -> None:
        self.base_lr, self.max_lr = base_lr, max_lr
        self.step_size_up, self.mode, self.gamma = step_size_up, mode, gamma
        self.cycle_momentum, self.base_momentum, self.max_momentum = cycle_momentum, base_momentum, max_momentum

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """torch's `CyclicLR`."""
        own = [group["lr"] for group in optimizer.param_groups]
        return CyclicLR(
            optimizer,
            [lr / 10 for lr in own] if self.base_lr is None else self.base_lr,
            own if self.max_lr is None else self.max_lr,
            self.step_size_up,
            mode=self.mode,
            gamma=self.gamma,
            cycle_momentum=self.cycle_momentum and cycles_momentum(optimizer, trainer),
            base_momentum=self.base_momentum,
            max_momentum=self.max_momentum,
        )
