"""Clipping gradients by their norm."""

import pytorch_lightning as pl
import torch
from torch import Tensor

from lstmopt.callbacks.gradient_norm import GradientNorm
from lstmopt.errors import ConfigError


class GradientNormClipping(GradientNorm):
    """Scale all gradients down together where their norm is above `max_norm` (Keras: `global_clipnorm`).

    Args:
        max_norm: largest norm.
        norm_type: which norm; 2 is Euclid's.

    Raises:
        ConfigError: `max_norm` is not positive, or the Trainer clips already.

    Reference: Pascanu, Mikolov & Bengio 2013.
    """

    def __init__(self, max_norm: float = 1.0, norm_type: float = 2.0) -> None:
        if max_norm <= 0:
            raise ConfigError(f"max_norm={max_norm} is not positive", "type max_norm=1.0")
        self.max_norm, self.norm_type = max_norm, norm_type

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse to clip twice."""
        refuse_second(trainer)

    def clip(self, parameters: list[Tensor], looked_at: bool) -> tuple[Tensor | None, Tensor | None]:
        """torch's `clip_grad_norm_`; the norm after follows from the norm before."""
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm, self.norm_type)
        return norm, norm * (self.max_norm / (norm + 1e-6)).clamp(max=1.0)


def refuse_second(trainer: pl.Trainer) -> None:
    """Raise where the Trainer's own clipping is on as well."""
    if trainer.gradient_clip_val:
        raise ConfigError("gradients would be clipped twice", "leave out the Trainer's gradient_clip_val")
