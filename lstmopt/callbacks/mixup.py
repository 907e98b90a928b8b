"""Mixtures of two sequences in the place of each."""

from functools import partial

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
    the inputs, each its own for its labels. It works on numbers, not on tokens, and costs no second forward pass.

    Args:
        concentration: α > 0: small values leave most mixtures close to one of the two, 1 makes every proportion as
            likely.

    Raises:
        ConfigError: α is not positive, the module is none of lstmopt's, another callback has its own way to the loss,
            the optimizer needs the curvature of the plain one, or the inputs are whole numbers.

    Reference: Zhang et al. 2018, mixup: beyond empirical risk minimization.
    """

    def __init__(self, concentration: float = 0.5) -> None:
        if concentration <= 0:
            raise ConfigError(f"mixup's concentration is {concentration}", "type callbacks.mixup.concentration=0.5")
        self.concentration = concentration
        self._module: LSTMModule | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the mixed loss in the place of the plain one."""
        if not isinstance(pl_module, LSTMModule):
            raise ConfigError("mixup has to know inputs and labels apart, as in LSTMModule", "leave mixup out")
        if "training_loss" in vars(pl_module):
            raise ConfigError("another callback has its own way to the loss", "leave mixup out, or type memory=none")
        object.__setattr__(pl_module, "training_loss", partial(self._loss, pl_module))
        self._module = pl_module

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse an optimizer that computes with the model's predictions itself."""
        if isinstance(trainer.optimizers[0], SecondOrder):
            name = type(trainer.optimizers[0]).__name__
            raise ConfigError(
                f"{name} needs the curvature of the plain loss", "leave mixup out, or type optimizer=adam"
            )

    def _loss(self, module: LSTMModule, batch: Batch) -> Tensor:
        """In the place of `LSTMModule.training_loss`."""
        if not batch.x.is_floating_point():
            raise ConfigError("the inputs are whole numbers, which cannot be mixed", "leave mixup out")
        share = float(torch.distributions.Beta(self.concentration, self.concentration).sample())
        order = torch.randperm(len(batch.x)).to(batch.x.device)
        lengths = None if batch.lengths is None else batch.lengths[order.to(batch.lengths.device)]
        other = Batch(batch.x[order], batch.y[order], lengths, batch.starts)
        longer = None if batch.lengths is None or lengths is None else torch.maximum(batch.lengths, lengths)
        out = module(batch._replace(x=torch.lerp(other.x, batch.x, share), lengths=longer))
        return share * module.task.loss(out, batch) + (1 - share) * module.task.loss(out, other)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the module as it was."""
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._leave()

    def _leave(self) -> None:
        if self._module is not None:
            object.__delattr__(self._module, "training_loss")
            self._module = None
