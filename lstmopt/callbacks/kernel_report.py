"""Which kernels the LSTMs run on."""

import warnings
from functools import partial
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.utils.hooks import RemovableHandle

from lstmopt.models.kernel import Kernel, kernel
from lstmopt.models.loop_layer import LoopLayer


class KernelReport(pl.Callback):
    """Say after the first training batch which kernel each LSTM runs on, and why; warn where it is not a fused one.

    The first batch is looked at, because packed sequences, the number format and the batch size decide. One line for
    all LSTMs with the same answer; only the first of several processes speaks.

    Attributes:
        found: kernels by the name of the LSTM in the module.
    """

    def __init__(self) -> None:
        self.found: dict[str, Kernel] = {}
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what each LSTM is called with."""
        self.found = {}
        for name, layer in pl_module.named_modules():
            if isinstance(layer, nn.LSTM | LoopLayer):
                self._hooks.append(layer.register_forward_pre_hook(partial(self._look, name), with_kwargs=True))

    def _look(self, name: str, layer: nn.LSTM | LoopLayer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name not in self.found:
            lengths = args[2] if len(args) > 2 else kwargs.get("lengths")
            self.found[name] = kernel(layer, args[0] if args else kwargs["input"], lengths is not None)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell, once."""
        if not self._hooks:
            return
        self._unhook()
        if not trainer.is_global_zero:
            return
        for answer in dict.fromkeys(self.found.values()):
            names = ", ".join(name for name, other in self.found.items() if other == answer)
            if answer.fused:
                print(f"kernel of {names}: {answer}", flush=True)
            else:
                warnings.warn(f"no fused kernel for {names}: {answer}", stacklevel=2)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave no hook behind."""
        self._unhook()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self._unhook()

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
