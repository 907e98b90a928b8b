"""Clipping gradients value by value."""

import torch
from torch import Tensor

from lstmopt.callbacks.gradient_norm import GradientNorm, Policy
from lstmopt.errors import ConfigError


class GradientValueClipping(GradientNorm):
    """Cut every entry of the gradients to between -`clip_value` and `clip_value` (Keras: `clipvalue`).

    Args:
        clip_value: largest absolute value.
        nonfinite: what a NaN or infinite loss or gradient does: `stop`, `skip` or `rollback`; see `GradientNorm`.

    Raises:
        ConfigError: `clip_value` is not positive; see `GradientNorm` for the others.

    Reference: Mikolov 2012, Statistical language models based on neural networks.
    """

    clips = True

    def __init__(self, clip_value: float = 0.5, nonfinite: Policy = "stop") -> None:
        super().__init__(nonfinite)
        if clip_value <= 0:
            raise ConfigError(f"clip_value={clip_value} is not positive", "type clip_value=0.5")
        self.clip_value = clip_value

    def clip(self, parameters: list[Tensor], norm: Tensor) -> None:
        """torch's `clip_grad_value_`."""
        torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
