"""Watching the gradient norm."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import FSDPStrategy
from torch import Tensor
from torch.optim import LBFGS, Adam, Optimizer

from lstmopt import rollback
from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.errors import ConfigError
from lstmopt.optim.truncated_newton import TruncatedNewton

MOST_IN_A_ROW = 25
MOST_ROLLBACKS = 5
WHAT_TO_TYPE = (
    "type a smaller optimizer.lr, gradient_clip=norm callbacks.gradient_clip.nonfinite=skip (or rollback), "
    "precision=fp32, or look for NaN in the data"
)
Policy = Literal["stop", "skip", "rollback"]


class GradientNorm(pl.Callback):
    """Log the 2-norm of all gradients, before each step, after they were unscaled (AMP); guard against NaN.

    Clipping options are subclasses that change the gradients in `clip`. The norms are logged every
    `log_every_n_steps` steps as `grad_norm/before` and `grad_norm/after`. With a closure optimizer (L-BFGS) they are
    those of the first evaluation of each step.

    A step whose loss or norm is NaN or infinite never changes a weight. What happens then is `nonfinite`:

    - `stop`: the run ends; weights and optimizer state are those before the step.
    - `skip`: the step is left out with all its gradients, also where L-BFGS is in the midst of it.
      `grad_norm/skipped_steps` counts.
    - `rollback`: weights, buffers and optimizer state become those at the start of the epoch (of the fit, where it
      began within one), learning rates and those that schedules will set are cut in half, and the next batch follows.
      `grad_norm/rollbacks` counts. The state is held twice in memory, and is part of checkpoints.

    On a GPU `stop` and `rollback` wait for the norm in every step. With `skip` a fused Adam leaves the step out by
    itself there, and the count comes with the next logged norm. With fp16 the loss scaler leaves such steps out, as
    part of its search for a scale, and nothing is counted.

    Args:
        nonfinite: what a NaN or infinite loss or gradient does: `stop`, `skip` or `rollback`.

    Attributes:
        before: the newest norm before clipping, a scalar tensor.
        after: and after clipping.
        skipped: steps left out so far.
        rollbacks: how many so far.

    Raises:
        ConfigError: a loss or gradient is not finite (`stop`), 25 steps in a row (`skip`), or after 5 rollbacks; or the
            Trainer clips as well, or an optimizer that compares the loss with its gradient would get a changed one.
    """

    clips = False
    host = "cpu"  # where a number is read without waiting

    def __init__(self, nonfinite: Policy = "stop") -> None:
        if nonfinite not in get_args(Policy):
            raise ConfigError(f"nonfinite={nonfinite} is not known", "type stop, skip or rollback")
        self.nonfinite = nonfinite
        self.before: Tensor | None = None
        self.after: Tensor | None = None
        self.skipped = self.rollbacks = 0
        self._in_a_row = 0
        self._step = self._bad_step = -1
        self._loss: float | Tensor = 0.0  # of the batches since the last step
        self._there: Tensor | None = None  # on the device: steps left out, and how many of them in a row
        self._good: dict[str, Any] | None = None  # the state to go back to
        self._pending: str | None = None  # why to go back to it, after this batch
        self._start: tuple[dict[Tensor, Tensor], dict[Any, Any]] | None = (
            None  # weights and state before an L-BFGS step
        )

    def clip(self, parameters: list[Tensor], norm: Tensor) -> None:
        """Change the gradients, whose 2-norm is `norm`."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse to clip twice, and to clip where the gradient has to be the loss's own."""
        self._step = self._bad_step = -1
        self._loss, self._pending, self._start = 0.0, None, None
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

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where the fit begins within an epoch, go back no further, unless the checkpoint knows its start."""
        for optimizer in trainer.optimizers:
            if isinstance(optimizer, LBFGS):
                optimizer.step = _can_end(optimizer.step)  # type: ignore[method-assign]
        if self.nonfinite == "rollback" and (self._good is None or self._good["epoch"] != trainer.current_epoch):
            self._good = rollback.take(trainer, pl_module) or self._good

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the state, if all weights are numbers."""
        if self.nonfinite == "rollback":
            self._good = rollback.take(trainer, pl_module) or self._good

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Add the loss of one batch."""
        whole = loss if loss.ndim == 0 else loss.sum()
        self._loss = self._loss + (whole.item() if whole.device.type == self.host else whole.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure, guard, clip, and log now and then."""
        step = trainer.global_step
        first, self._step = self._step != step, step
        loss, self._loss = self._loss, 0.0
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        sharded = isinstance(trainer.strategy, FSDPStrategy)
        if not parameters and not sharded:
            return
        norm = total_norm(parameters) if parameters else torch.zeros((), device=trainer.strategy.root_device)
        if sharded:
            norm = trainer.strategy.reduce(norm.square(), reduce_op="sum").sqrt()
        if getattr(trainer.strategy.precision_plugin, "scaler", None) is None:
            alone = trainer.world_size == 1
            if alone and self.nonfinite == "skip" and norm.device.type != self.host and leaves_out(optimizer):
                self._skip_there(trainer, optimizer, norm + loss)
            elif self._is_bad(trainer, norm, loss):
                return self._leave_out(trainer, optimizer, parameters, norm, loss, first)
            elif first and isinstance(optimizer, LBFGS):
                self._start = {p: p.detach().clone() for p in parameters}, _half_copied(optimizer.state)
        self._in_a_row = self._in_a_row if self._bad_step == step else 0
        self.clip(parameters, norm)
        if first and step % trainer.log_every_n_steps == 0 and trainer.loggers:  # type: ignore[attr-defined]
            self.before, self.after = norm, total_norm(parameters) if self.clips else norm
            _log(trainer, {"grad_norm/before": float(norm), "grad_norm/after": float(self.after)})

    def _is_bad(self, trainer: pl.Trainer, norm: Tensor, loss: float | Tensor) -> bool:
        """Whether one of both is not finite, on any device."""
        bad = not math.isfinite(float(norm) + float(loss))
        if trainer.world_size > 1:
            bad = trainer.strategy.reduce_boolean_decision(bad, all=False)
        return bad

    def _leave_out(
        self,
        trainer: pl.Trainer,
        optimizer: Optimizer,
        parameters: list[Tensor],
        norm: Tensor,
        loss: float | Tensor,
        first: bool,
    ) -> None:
        """End the run, or throw the gradients of this step out."""
        step, loop = trainer.global_step, trainer.fit_loop.epoch_loop
        what = (
            f"step {step} (epoch {trainer.current_epoch + 1}, batch {loop.batch_idx + 1}): the loss is {float(loss):g} "
            f"and the gradient norm {float(norm):g}, at learning rate {float(optimizer.param_groups[0]['lr']):g}"
        )
        if not first and self._start is not None:
            self._restart_step(optimizer, *self._start)
        back = self.nonfinite == "rollback" and self.rollbacks < MOST_ROLLBACKS and self._good is not None
        if not back and self.nonfinite != "skip":
            after = f" after {self.rollbacks} rollbacks" if self.rollbacks else ""
            raise ConfigError(f"{what}{after}; no weight was changed", WHAT_TO_TYPE)
        for parameter in parameters:
            parameter.grad = None
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TBPTT):
                callback.forget()
        if back:
            self._pending = what
        elif self._bad_step != step:  # an optimizer may evaluate the loss several times per step
            self._bad_step = step
            self._count(trainer)
        if isinstance(optimizer, LBFGS):
            raise _StepOver

    @staticmethod
    def _restart_step(optimizer: Optimizer, weights: dict[Tensor, Tensor], state: dict[Any, Any]) -> None:
        """Undo what L-BFGS has changed since the first evaluation of this step."""
        with torch.no_grad():
            for parameter, weight in weights.items():
                parameter.copy_(weight)
        optimizer.state.clear()
        optimizer.state.update(state)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Go back, now that the optimizer writes nothing more."""
        if self._pending is None or self._good is None:
            return
        rollback.put_back(trainer, pl_module, self._good)
        rollback.halve_rates(trainer)
        self.rollbacks += 1
        trainer.print(
            f"rollback {self.rollbacks} of {MOST_ROLLBACKS}: {self._pending}; "
            f"back to the start of epoch {self._good['epoch'] + 1} with half the rate"
        )
        _log(trainer, {"grad_norm/rollbacks": float(self.rollbacks)})
        self._pending = None

    def _skip_there(self, trainer: pl.Trainer, optimizer: Optimizer, value: Tensor) -> None:
        """Tell a fused optimizer to leave the step out if the value is no number, and count now and then."""
        optimizer.found_inf = bad = (~value.isfinite()).float()  # type: ignore[attr-defined]
        if self._there is None:
            self._there = torch.tensor([float(self.skipped), 0.0]).to(value.device)
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
        self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        _log(trainer, {"grad_norm/skipped_steps": float(self.skipped)})
        if self._in_a_row >= MOST_IN_A_ROW:
            raise ConfigError(
                f"the loss or gradients of {self._in_a_row} steps in a row are NaN or infinite "
                f"(step {trainer.global_step})",
                "type a smaller optimizer.lr, gradient_clip=norm, precision=fp32, or look for NaN in the data",
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say that steps were left out."""
        self._fetch(trainer)
        if self.skipped:
            trainer.print(f"{self.skipped} steps were left out: their loss or gradients were NaN or infinite")

    def state_dict(self) -> dict[str, Any]:
        """The counts, and the state to go back to."""
        skipped = self.skipped if self._there is None else int(self._there[0])
        return {"skipped": skipped, "rollbacks": self.rollbacks, "good": self._good}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self._there = state_dict["skipped"], None
        self.rollbacks, self._good = state_dict.get("rollbacks", 0), state_dict.get("good")


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


class _StepOver(Exception):
    """L-BFGS has to leave its step: its line search cannot go on from a loss that is no number."""


def _can_end(step: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(step)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return step(*args, **kwargs)
        except _StepOver:
            return None

    return wrapped


def _half_copied(value: Any) -> Any:
    """A copy that shares the tensors within lists: L-BFGS adds to its history and never changes it."""
    if isinstance(value, dict):
        return {key: _half_copied(item) for key, item in value.items()}
    return value.clone() if isinstance(value, Tensor) else list(value) if isinstance(value, list) else value


def _log(trainer: pl.Trainer, values: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, step=trainer.global_step)
