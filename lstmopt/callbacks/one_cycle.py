"""The one-cycle schedule."""

from typing import Any, Literal

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from lstmopt.callbacks.lr_schedule import LRSchedule, cycles_momentum, total_steps


class OneCycle(LRSchedule):
    """Up to `max_lr` and down to almost nothing, in one cycle over the whole run, step by step.

    Its length is that of the run. A run resumed with another length goes on, on the cycle of the new length; beyond
    the end the last rate stays.

    Args:
        max_lr: the highest learning rate; None is three times the optimizer's, group by group.
        pct_start: part of the run in which the rate rises.
        anneal_strategy: `cos` or `linear`.
        cycle_momentum: let the momentum (or the first beta) fall while the rate rises; off where the optimizer has
            neither, which is said.
        base_momentum: momentum at `max_lr`.
        max_momentum: momentum at the start and at the end.
        div_factor: `max_lr` / first rate.
        final_div_factor: first rate / last rate.
        three_phase: a third phase for the last descent.

    Reference: Smith & Topin 2018, Super-convergence.
    """

    interval = "step"

    def __init__(
        self,
        max_lr: float | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        self.max_lr = max_lr
        self.options: dict[str, Any] = {
            "pct_start": pct_start,
            "anneal_strategy": anneal_strategy,
            "cycle_momentum": cycle_momentum,
            "base_momentum": base_momentum,
            "max_momentum": max_momentum,
            "div_factor": div_factor,
            "final_div_factor": final_div_factor,
            "three_phase": three_phase,
        }

    def make(self, optimizer: Optimizer, trainer: pl.Trainer) -> LRScheduler:
        """The cycle over the run's length."""
        options = dict(self.options)
        options["cycle_momentum"] = options["cycle_momentum"] and cycles_momentum(optimizer, trainer)
        own = [3 * group["lr"] for group in optimizer.param_groups]
        max_lr = own if self.max_lr is None else self.max_lr
        return _OneCycle(optimizer, max_lr, total_steps=total_steps(trainer), **options)


class _OneCycle(OneCycleLR):
    """torch's schedule, but never beyond its end, and with its own length after a resume."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take everything but the length; a longer or shorter run has its own phases."""
        own = {key: self.__dict__[key] for key in ("total_steps", "_schedule_phases")}
        super().load_state_dict(state_dict | own)

    def get_lr(self) -> list[float | Tensor]:
        """The rate; after the last step the last rate."""
        here = self.last_epoch
        self.last_epoch = min(here, self.total_steps - 1)
        try:
            return super().get_lr()
        finally:
            self.last_epoch = here
