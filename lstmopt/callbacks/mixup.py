"""Mixtures of two sequences in the place of each."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lstmopt.data.batch import Batch
from lstmopt.errors import ConfigError
from lstmopt.module import LSTMModule
from lstmopt.optim.second_order import SecondOrder


class Mixup(pl.Callback):
    """Train on mixtures of pairs of sequences, and on their losses in the same proportion; evaluation sees none.

    Each step draws λ from Beta(α, α) and a partner for every sequence of the batch: the inputs become
    `λ x + (1 − λ) x'`, the loss `λ L(out, y) + (1 − λ) L(out, y')`. For cross-entropy that is the loss of the labels
    mixed like the inputs, and for the squared error it has the same gradient. Of two lengths the longer one counts for
    the inputs, each its own for its labels. It works on numbers, not on tokens, and costs no second forward pass. In
    another module than `LSTMModule`, whose batches are pairs `(x, y)` and whose training step returns the loss, the
    step is taken twice, with the labels of the one and of the other.

    Args:
        concentration: α > 0: small values leave most mixtures close to one of the two, 1 makes every proportion as
            likely.

    Raises:
        ConfigError: α is not positive, another callback has its own way to the loss, the optimizer needs the curvature
            of the plain one, batches are no pairs, or the inputs are whole numbers.

    Reference: Zhang et al. 2018, mixup: beyond empirical risk minimization.
    """

    def __init__(self, concentration: float = 0.5) -> None:
        if concentration <= 0:
            raise ConfigError(f"mixup's concentration is {concentration}", "type callbacks.mixup.concentration=0.5")
        self.concentration = concentration
        self._replaced: tuple[pl.LightningModule, str] | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the mixed loss in the place of the plain one."""
        name = "training_loss" if isinstance(pl_module, LSTMModule) else "training_step"
        if name in vars(pl_module):
            raise ConfigError("another callback has its own way to the loss", "leave mixup out, or type memory=none")
        if isinstance(pl_module, LSTMModule):
            object.__setattr__(pl_module, name, partial(self._loss, pl_module))
        else:
            object.__setattr__(pl_module, name, self._twice(pl_module.training_step))
        self._replaced = pl_module, name

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse an optimizer that computes with the model's predictions itself."""
        if isinstance(trainer.optimizers[0], SecondOrder):
            name = type(trainer.optimizers[0]).__name__
            raise ConfigError(
                f"{name} needs the curvature of the plain loss", "leave mixup out, or type optimizer=adam"
            )

    def _draw(self, x: Tensor) -> tuple[float, Tensor]:
        """The proportion, and each sequence's partner."""
        if not x.is_floating_point():
            raise ConfigError("the inputs are whole numbers, which cannot be mixed", "leave mixup out")
        share = float(torch.distributions.Beta(self.concentration, self.concentration).sample())
        return share, torch.randperm(len(x)).to(x.device)

    def _loss(self, module: LSTMModule, batch: Batch) -> Tensor:
        """In the place of `LSTMModule.training_loss`."""
        share, order = self._draw(batch.x)
        lengths = None if batch.lengths is None else batch.lengths[order.to(batch.lengths.device)]
        other = Batch(batch.x[order], batch.y[order], lengths, batch.starts)
        longer = None if batch.lengths is None or lengths is None else torch.maximum(batch.lengths, lengths)
        out = module(batch._replace(x=torch.lerp(other.x, batch.x, share), lengths=longer))
        return share * module.task.loss(out, batch) + (1 - share) * module.task.loss(out, other)

    def _twice(self, step: Callable[..., Any]) -> Callable[..., Tensor]:
        """In the place of another module's `training_step`."""

        @wraps(step)
        def mixed(batch: Any, *more: Any) -> Tensor:
            pair = isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[0], Tensor)
            if not pair:
                raise ConfigError("mixup needs batches (x, y), and this module's are others", "leave mixup out")
            x, y = batch
            share, order = self._draw(x)
            x = torch.lerp(x[order], x, share)
            return share * step((x, y), *more) + (1 - share) * step((x, y[order]), *more)

        return mixed

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the module as it was."""
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._leave()

    def _leave(self) -> None:
        if self._replaced is not None:
            object.__delattr__(*self._replaced)
            self._replaced = None
