"""Clipping gradients relative to the weights."""

import torch
from torch import Tensor

from lstmopt.callbacks.gradient_norm import GradientNorm, Policy
from lstmopt.errors import ConfigError


class AdaptiveGradientClipping(GradientNorm):
    """Scale the gradient of each unit down where its norm is above `ratio` times the norm of the unit's weights.

    A unit is a row of a weight matrix; a bias is one unit.

    Args:
        ratio: largest norm of the gradient / norm of the weights.
        eps: weights count as at least this large, so that units that start at 0 can learn.
        nonfinite: what a NaN or infinite loss or gradient does: `stop`, `skip` or `rollback`; see `GradientNorm`.

    Raises:
        ConfigError: `ratio` is not positive; see `GradientNorm` for the others.

    Reference: Brock et al. 2021, High-performance large-scale image recognition without normalization, section 4.
    """

    clips = True

    def __init__(self, ratio: float = 0.05, eps: float = 1e-3, nonfinite: Policy = "stop") -> None:
        super().__init__(nonfinite)
        if ratio <= 0:
            raise ConfigError(f"ratio={ratio} is not positive", "type ratio=0.05")
        self.ratio, self.eps = ratio, eps

    @torch.no_grad()
    def clip(self, parameters: list[Tensor], norm: Tensor) -> None:
        """pytorch-optimizer's `agc`."""
        from pytorch_optimizer import agc

        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(agc(parameter, parameter.grad, self.eps, self.ratio))
