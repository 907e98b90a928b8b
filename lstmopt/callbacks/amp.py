"""Automatic mixed precision."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from lstmopt.errors import ConfigError


class AMP(pl.Callback):
    """Compute in a short number format where it is safe; weights and optimizer stay in float32.

    Lightning's own precision plugin, put in place in `setup`. On a CPU without arithmetic for bfloat16, where torch's
    LSTM would break, the run stays in float32, and says so. With fp16 the loss scale is logged as
    `amp/loss_scale` every `log_every_n_steps` steps.

    Args:
        precision: `bf16-mixed`, or `16-mixed` (fp16 with loss scaling, GPUs only).

    Raises:
        ConfigError: fp16 on a CPU, or the Trainer has another precision already.

    Reference: Micikevicius et al. 2018, Mixed precision training.
    """

    def __init__(self, precision: Literal["bf16-mixed", "16-mixed"] = "bf16-mixed") -> None:
        if precision not in ("bf16-mixed", "16-mixed"):
            raise ConfigError(f"precision={precision} is not known", "type bf16-mixed or 16-mixed")
        self.precision: Literal["bf16-mixed", "16-mixed"] = precision

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put the plugin in place, once."""
        if trainer.precision == self.precision:
            return
        if trainer.precision != "32-true":
            raise ConfigError(
                f"the Trainer computes in {trainer.precision} and AMP in {self.precision}",
                "leave out one of the two, Trainer(precision=...) or AMP",
            )
        device = trainer.strategy.root_device.type
        if device == "cpu" and self.precision == "16-mixed":
            raise ConfigError("fp16_mixed needs a GPU", "type precision=bf16_mixed")
        if device == "cpu" and not computes_in_bf16(trainer.strategy.root_device):
            trainer.print("precision: 32-true (this CPU has no bfloat16 arithmetic, and torch no LSTM without it)")
            return
        trainer.strategy.precision_plugin = MixedPrecision(self.precision, device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss scale now and then."""
        scaler = getattr(trainer.strategy.precision_plugin, "scaler", None)
        if scaler is not None and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                logger.log_metrics({"amp/loss_scale": scaler.get_scale()}, step=trainer.global_step - 1)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has arithmetic for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
