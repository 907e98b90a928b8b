"""Noise on the inputs."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstmopt.errors import ConfigError
from lstmopt.module import LSTMModule


class InputNoise(pl.Callback):
    """Add Gaussian noise to the inputs of the LSTM in training, drawn anew for each step; evaluation sees none.

    Training with small noise is training with a penalty on the slope of the output that grows with `std²` (Bishop), so
    that sequences close to one another get the same answer. `std` is in the units of the model's inputs, which most
    data sets standardise; of a text the vectors of the tokens get the noise. In another module than `LSTMModule` it is
    added to the input of the first `nn.LSTM`.

    Args:
        std: standard deviation of the noise, at least 0.

    Raises:
        ConfigError: `std` is negative, there is no LSTM, or its inputs are whole numbers.

    Reference: Bishop 1995, Training with noise is equivalent to Tikhonov regularization; Jim, Giles & Horne 1996.
    """

    def __init__(self, std: float = 0.1) -> None:
        if std < 0:
            raise ConfigError(f"the standard deviation of the noise is {std}", "type callbacks.input_noise.std=0.1")
        self.std = std
        self._hook: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the noise before the model."""
        if isinstance(pl_module, LSTMModule):
            model: nn.Module | None = pl_module.model
        else:
            model = next((module for module in pl_module.modules() if isinstance(module, nn.LSTM)), None)
        if model is None:
            raise ConfigError("input_noise needs an nn.LSTM, and this module has none", "leave input_noise out")
        self._hook = model.register_forward_pre_hook(self._noisy, with_kwargs=True)

    def _noisy(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not model.training:
            return None
        name = "input" if isinstance(model, nn.LSTM) else "x"
        x = args[0] if args else kwargs[name]
        x = x._replace(data=self._add(x.data)) if isinstance(x, PackedSequence) else self._add(x)
        return ((x, *args[1:]), kwargs) if args else (args, kwargs | {name: x})

    def _add(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            raise ConfigError("the inputs are whole numbers, to which no noise can be added", "leave input_noise out")
        return x + self.std * torch.randn_like(x)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take it away."""
        self._take_away()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take it away."""
        self._take_away()

    def _take_away(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
