"""The kernels of a step, recorded once and launched together."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from lstmopt.data.batch import Batch
from lstmopt.errors import ConfigError
from lstmopt.module import LSTMModule
from lstmopt.optim.second_order import SecondOrder

Shapes = tuple[tuple[torch.Size, torch.dtype] | None, ...]


class CudaGraph(pl.Callback):
    """Run the loss and its gradients as CUDA graphs: small models' kernels end before the host launches the next one.

    The first batch trains as ever. Then the kernels of the forward and of the backward pass are recorded on a batch
    of that shape, and from there on a step launches two graphs, the optimizer, and what callbacks add. Batches of other
    shapes (the last of an epoch, unequal lengths in another bucket) run kernel by kernel. Random masks are new in every
    step, as without graphs. On a CPU it does nothing.

    Args:
        shapes: graphs to record at most, one for each shape of a batch in the order in which they come.

    Attributes:
        recorded: graphs there are.

    Raises:
        ConfigError: the module is not an `LSTMModule`, the optimizer needs autograd's own graph (K-FAC, Newton),
            another technique changes the loss (truncated backpropagation, recomputation), or there are several devices.

    Reference: Nguyen et al. 2021, Accelerating PyTorch with CUDA graphs.
    """

    device_type = "cuda"

    def __init__(self, shapes: int = 1) -> None:
        self.shapes = shapes
        self._graphs: dict[Shapes, Callable[..., Tensor]] = {}
        self._seen: set[Shapes] = set()
        self._module: LSTMModule | None = None

    @property
    def recorded(self) -> int:
        """Graphs there are."""
        return len(self._graphs)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what cannot be recorded; stand between the step and the loss."""
        if trainer.strategy.root_device.type != self.device_type:
            return
        reason = why_not(trainer, pl_module)
        if reason:
            raise ConfigError(f"a step cannot be recorded as a CUDA graph: {reason}", "type trainer=gpu")
        assert isinstance(pl_module, LSTMModule)
        self._graphs, self._seen, self._module = {}, set(), pl_module
        object.__setattr__(pl_module, "training_loss", self._loss)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record a shape that was there before, and so has all its kernels chosen."""
        if self._module is None:
            return
        key = _shapes(batch)
        if key in self._seen and key not in self._graphs and self.recorded < self.shapes:
            with trainer.strategy.precision_plugin.train_step_context():
                before = torch.is_autocast_cache_enabled()
                torch.set_autocast_cache_enabled(False)  # weights are cast anew in every replay
                try:
                    self._graphs[key] = self.record(_Loss(self._module), _tensors(batch))
                finally:
                    torch.set_autocast_cache_enabled(before)
        self._seen.add(key)

    def record(self, loss: nn.Module, tensors: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        """What computes `loss` of such tensors by replays."""
        static = tuple(part.clone() for part in tensors)  # replays read them from here
        return torch.cuda.make_graphed_callables(loss, static, allow_unused_input=True)  # type: ignore[return-value]

    def _loss(self, batch: Batch) -> Tensor:
        """In the place of `LSTMModule.training_loss`."""
        assert self._module is not None
        graph = self._graphs.get(_shapes(batch))
        if graph is None:
            return LSTMModule.training_loss(self._module, batch)
        return graph(*_tensors(batch)).clone()  # the next replay writes over it

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where gradients of several batches are added, keep what the next replay would write over."""
        if self._graphs and trainer.accumulate_grad_batches > 1:
            for parameter in pl_module.parameters():
                if parameter.grad is not None:
                    parameter.grad = parameter.grad.clone()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the memory of the graphs back."""
        self._leave()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._leave()

    def _leave(self) -> None:
        if self._module is not None:
            object.__delattr__(self._module, "training_loss")
        self._module, self._graphs = None, {}


class _Loss(nn.Module):
    """The training loss as a module of tensors, which has the parameters."""

    def __init__(self, module: LSTMModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        return LSTMModule.training_loss(self.module, Batch(x, y, lengths))


def why_not(trainer: pl.Trainer, module: pl.LightningModule) -> str | None:
    """What keeps a step from being recorded."""
    if not isinstance(module, LSTMModule):
        return "the module is not lstmopt's"
    if type(trainer.strategy) is not SingleDeviceStrategy:
        return "there are several devices"
    if isinstance(trainer.optimizers[0], SecondOrder):
        return f"{type(trainer.optimizers[0]).__name__} needs autograd's own graph"
    if "training_loss" in vars(module) or getattr(getattr(trainer, "datamodule", None), "cut", None):
        return "a memory option or another callback has its own way to the loss"
    return None


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    parts = batch.x, batch.y, batch.lengths
    return tuple(part.to(batch.x.device) for part in parts if part is not None)


def _shapes(batch: Batch) -> Shapes:
    parts = batch.x, batch.y, batch.lengths
    return tuple((part.shape, part.dtype) if part is not None else None for part in parts)
