"""Clipping the gradient of each weight by its own norm."""

import torch
from torch import Tensor

from lstmopt.callbacks.gradient_norm import GradientNorm, Policy
from lstmopt.errors import ConfigError


class PerWeightNormClipping(GradientNorm):
    """Scale the gradient of each weight tensor down where its own norm is above `max_norm` (Keras: `clipnorm`).

    Keras holds both biases of an LSTM layer as one; here each is clipped alone.

    Args:
        max_norm: largest norm of one tensor's gradient.
        nonfinite: what a NaN or infinite loss or gradient does: `stop`, `skip` or `rollback`; see `GradientNorm`.

    Raises:
        ConfigError: `max_norm` is not positive; see `GradientNorm` for the others.

    Reference: Keras 3, `clipnorm` of every optimizer.
    """

    clips = True

    def __init__(self, max_norm: float = 1.0, nonfinite: Policy = "stop") -> None:
        super().__init__(nonfinite)
        if max_norm <= 0:
            raise ConfigError(f"max_norm={max_norm} is not positive", "type max_norm=1.0")
        self.max_norm = max_norm

    @torch.no_grad()
    def clip(self, parameters: list[Tensor], norm: Tensor) -> None:
        """Tensor by tensor."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        for gradient, own in zip(gradients, torch._foreach_norm(gradients), strict=True):
            gradient.mul_(self.max_norm / own.clamp(min=self.max_norm))
