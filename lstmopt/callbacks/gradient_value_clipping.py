"""Clipping gradients value by value."""

import pytorch_lightning as pl
import torch
from torch import Tensor

from lstmopt.callbacks.gradient_norm import GradientNorm, total_norm
from lstmopt.callbacks.gradient_norm_clipping import refuse_second
from lstmopt.errors import ConfigError


class GradientValueClipping(GradientNorm):
    """Cut every entry of the gradients to between -`clip_value` and `clip_value` (Keras: `clipvalue`).

    Args:
        clip_value: largest absolute value.

    Raises:
        ConfigError: `clip_value` is not positive, or the Trainer clips already.
    """

    def __init__(self, clip_value: float = 0.5) -> None:
        if clip_value <= 0:
            raise ConfigError(f"clip_value={clip_value} is not positive", "type clip_value=0.5")
        self.clip_value = clip_value

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse to clip twice."""
        refuse_second(trainer)

    def clip(self, parameters: list[Tensor], looked_at: bool) -> tuple[Tensor | None, Tensor | None]:
        """torch's `clip_grad_value_`; the norms are measured where somebody looks at them."""
        before = total_norm(parameters) if looked_at else None
        torch.nn.utils.clip_grad_value_(parameters, self.clip_value)
        return before, total_norm(parameters) if looked_at else None
