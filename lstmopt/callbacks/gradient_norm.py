"""Watching the gradient norm."""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import LBFGS, Adam, Optimizer

from lstmopt.errors import ConfigError
from lstmopt.optim.truncated_newton import TruncatedNewton

MOST_IN_A_ROW = 25


class GradientNorm(pl.Callback):
    """Log the 2-norm of all gradients, before each step, after they were unscaled (AMP); skip steps without a number.

    Clipping options are subclasses that change the gradients in `clip`. The norms are logged every
    `log_every_n_steps` steps as `grad_norm/before` and `grad_norm/after`. With a closure optimizer (L-BFGS) they are
    those of the first evaluation of each step.

    A step whose norm is NaN or infinite is left out: the gradients are removed, so that weights and optimizer state
    stay as they are; a closure optimizer ends its step there. `grad_norm/skipped_steps` counts them. With fp16 the
    loss scaler does that, as part of its search for a scale, and nothing is counted. On a GPU a fused Adam leaves the
    step out by itself, so that the host need not wait for the norm; the count then comes with the next logged norm.

    Args:
        skip_nonfinite: leave such steps out.

    Attributes:
        before: the newest norm before clipping, a scalar tensor.
        after: and after clipping.
        skipped: steps left out so far.

    Raises:
        ConfigError: 25 steps in a row had no finite gradient, or the Trainer clips as well, or an optimizer that
            compares the loss with its gradient would get a changed gradient.
    """

    clips = False
    host = "cpu"  # where a number is read without waiting

    def __init__(self, skip_nonfinite: bool = True) -> None:
        self.skip_nonfinite = skip_nonfinite
        self.before: Tensor | None = None
        self.after: Tensor | None = None
        self.skipped = 0
        self._in_a_row = 0
        self._step = self._skipped_step = -1
        self._there: Tensor | None = None  # on the device: steps left out, and how many of them in a row

    def clip(self, parameters: list[Tensor], norm: Tensor) -> None:
        """Change the gradients, whose 2-norm is `norm`."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to clip twice, and to clip where the gradient has to be the loss's own."""
        self._step = self._skipped_step = -1
        if not self.clips:
            return
        if trainer.gradient_clip_val:
            raise ConfigError("gradients would be clipped twice", "leave out the Trainer's gradient_clip_val")
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, LBFGS | TruncatedNewton):
                raise ConfigError(
                    f"{type(optimizer).__name__} compares the loss with its gradient, which must not be clipped",
                    "type gradient_clip=none",
                )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure, skip or clip, and log now and then."""
        first, self._step = self._step != trainer.global_step, trainer.global_step
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not parameters:
            return
        norm = total_norm(parameters)
        scaled = getattr(trainer.strategy.precision_plugin, "scaler", None) is not None
        if self.skip_nonfinite and not scaled and norm.device.type != self.host and leaves_out(optimizer):
            self._skip_there(trainer, optimizer, norm)
        elif self.skip_nonfinite and not scaled and not math.isfinite(float(norm)):
            for parameter in parameters:
                parameter.grad = None
            if self._skipped_step != trainer.global_step:
                self._count(trainer)
            return
        self._in_a_row = self._in_a_row if self._skipped_step == trainer.global_step else 0
        self.clip(parameters, norm)
        if first and trainer.loggers and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.before, self.after = norm, total_norm(parameters) if self.clips else norm
            _log(trainer, {"grad_norm/before": float(norm), "grad_norm/after": float(self.after)})

    def _skip_there(self, trainer: pl.Trainer, optimizer: Optimizer, norm: Tensor) -> None:
        """Tell a fused optimizer to leave the step out if the norm is no number, and count now and then."""
        optimizer.found_inf = bad = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        if self._there is None:
            self._there = torch.tensor([float(self.skipped), 0.0]).to(norm.device)
        self._there = torch.stack((self._there[0] + bad, (self._there[1] + bad) * bad))
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._fetch(trainer)

    def _fetch(self, trainer: pl.Trainer) -> None:
        """The counts from the device."""
        if self._there is None:
            return
        before, (skipped, self._in_a_row) = self.skipped, map(int, self._there.tolist())
        self.skipped = skipped
        if skipped > before:
            self._tell(trainer)

    def _count(self, trainer: pl.Trainer) -> None:
        self.skipped += 1
        self._in_a_row += 1
        self._skipped_step = trainer.global_step
        self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        _log(trainer, {"grad_norm/skipped_steps": float(self.skipped)})
        if self._in_a_row >= MOST_IN_A_ROW:
            raise ConfigError(
                f"the gradients of {self._in_a_row} steps in a row are NaN or infinite (step {trainer.global_step})",
                "type a smaller optimizer.lr, gradient_clip=norm, precision=fp32, or look for NaN in the data",
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say that steps were left out."""
        self._fetch(trainer)
        if self.skipped:
            trainer.print(f"{self.skipped} steps were left out: their gradients were NaN or infinite")

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"skipped": self.skipped if self._there is None else int(self._there[0])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self._there = state_dict["skipped"], None


def leaves_out(optimizer: Optimizer) -> bool:
    """Whether the optimizer takes a `found_inf`: a fused Adam, whose state stays as it is."""
    return isinstance(optimizer, Adam) and bool(getattr(optimizer, "_step_supports_amp_scaling", False))


@torch.no_grad()
def total_norm(parameters: list[Tensor]) -> Tensor:
    """2-norm of all gradients together."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if parameters[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(grads)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))  # the same, with less around it


def _log(trainer: pl.Trainer, values: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)
