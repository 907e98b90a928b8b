"""RMSprop as Keras computes it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class KerasRMSprop(Optimizer):
    """RMSprop with the numbers of `keras.optimizers.RMSprop`.

    Keras adds `eps` inside the root, torch outside; Keras forgets faster (0.9) than torch does by default (0.99).

    Args:
        params: parameters, (name, parameter) pairs, or groups of them.
        lr: learning rate.
        rho: decay of the running mean of squares.
        momentum: of the increments.
        eps: added to the mean square, inside the root.
        centered: divide by the variance instead of the mean square.

    Reference: Keras 3, keras.optimizers.RMSprop; Tieleman & Hinton 2012.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        rho: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-7,
        centered: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "momentum": momentum, "eps": eps, "centered": centered})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """One update; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rho = group["rho"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                used = {"square_avg": True, "momentum_buffer": group["momentum"], "grad_avg": group["centered"]}
                state.update({k: torch.zeros_like(p) for k, needed in used.items() if needed and k not in state})
                mean_square = state["square_avg"].mul_(rho).addcmul_(p.grad, p.grad, value=1 - rho)
                if group["centered"]:
                    mean = state["grad_avg"].mul_(rho).add_(p.grad, alpha=1 - rho)
                    mean_square = mean_square - mean.square()
                increment = group["lr"] * p.grad / (mean_square + group["eps"]).sqrt()
                if group["momentum"]:
                    increment = state["momentum_buffer"].mul_(group["momentum"]).add_(increment)
                p.sub_(increment)
        return loss
