"""Watching the gradient norm."""

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer


class GradientNorm(pl.Callback):
    """Log the 2-norm of all gradients, before each step, after they were unscaled (AMP).

    Clipping options are subclasses that change the gradients in `clip`. The norms are logged every
    `log_every_n_steps` steps as `grad_norm/before` and `grad_norm/after`; no other step waits for them. With a closure
    optimizer (L-BFGS) this runs at every evaluation of the closure.

    Attributes:
        before: the newest norm before clipping, a scalar tensor.
        after: and after clipping.
    """

    before: Tensor | None = None
    after: Tensor | None = None

    def clip(self, parameters: list[Tensor], looked_at: bool) -> tuple[Tensor | None, Tensor | None]:
        """Change the gradients; give the norms before and after where somebody looks at them."""
        if not looked_at:
            return None, None
        norm = total_norm(parameters)
        return norm, norm

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure, clip, and log now and then."""
        looked_at = trainer.global_step % trainer.log_every_n_steps == 0 and bool(trainer.loggers)  # type: ignore[attr-defined]
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.before, self.after = self.clip(parameters, looked_at)
        if looked_at and self.before is not None and self.after is not None:
            norms = {"grad_norm/before": float(self.before), "grad_norm/after": float(self.after)}
            for logger in trainer.loggers:
                logger.log_metrics(norms, step=trainer.global_step)


@torch.no_grad()
def total_norm(parameters: list[Tensor]) -> Tensor:
    """2-norm of all gradients together."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
