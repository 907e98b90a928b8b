"""Clipping gradients by their norm."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor

from lstmopt.callbacks.gradient_norm import GradientNorm, Policy
from lstmopt.errors import ConfigError


class GradientNormClipping(GradientNorm):
    """Scale all gradients down together where their norm is above `max_norm` (Keras: `global_clipnorm`).

    Args:
        max_norm: largest norm.
        norm_type: which norm; 2 is Euclid's.
        nonfinite: what a NaN or infinite loss or gradient does: `stop`, `skip` or `rollback`; see `GradientNorm`.

    Raises:
        ConfigError: `max_norm` is not positive, or the norm is another than Euclid's under fsdp; see `GradientNorm`
            for the others.

    Reference: Pascanu, Mikolov & Bengio 2013.
    """

    clips = True

    def __init__(self, max_norm: float = 1.0, norm_type: float = 2.0, nonfinite: Policy = "stop") -> None:
        super().__init__(nonfinite)
        if max_norm <= 0:
            raise ConfigError(f"max_norm={max_norm} is not positive", "type max_norm=1.0")
        self.max_norm, self.norm_type = max_norm, norm_type

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a norm of the parts that one process has."""
        super().on_fit_start(trainer, pl_module)
        if self.norm_type != 2.0 and isinstance(trainer.strategy, FSDPStrategy):
            raise ConfigError(
                f"norm_type={self.norm_type} needs whole gradients, and fsdp leaves each process a part",
                "type norm_type=2.0",
            )

    def clip(self, parameters: list[Tensor], norm: Tensor) -> None:
        """torch's clipping by a norm that is known."""
        if self.norm_type != 2.0:
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], self.norm_type)
        if norm.device.type == "cpu" and float(norm) + 1e-6 <= self.max_norm:
            return  # torch would multiply by one
        torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
