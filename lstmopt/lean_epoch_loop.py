"""Lightning's loop over the batches of an epoch, without what a plain run does not use."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.fetchers import _DataFetcher, _DataLoaderIterDataFetcher
from pytorch_lightning.loops.optimization.automatic import ClosureResult
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins import MixedPrecision, Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.trainer import call
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torch.optim import Optimizer

TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")
STEPPING = ("optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping")
HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)


class LeanEpochLoop(_TrainingEpochLoop):
    """The same hooks in the same order with the same arguments, but only those that somebody wrote.

    Stock Lightning asks every callback at every point, tells a profiler of each call, and inspects signatures anew in
    every step. All that is decided here once per epoch. Whatever is not plain goes Lightning's own way: several
    devices, manual optimization, loss scaling, a profiler, clipping by the Trainer, a module with its own optimizer
    step, the first batch after a resume.
    """

    _hooks: "Hooks | None" = None

    @classmethod
    def of(cls, loop: _TrainingEpochLoop) -> "LeanEpochLoop":
        """A lean loop in the place, and with the state, of Lightning's."""
        lean = cls.__new__(cls)
        lean.__dict__.update(vars(loop))
        return lean

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        """Decide how this epoch runs."""
        super().on_run_start(data_fetcher)
        self._hooks = Hooks(self.trainer) if plain(self.trainer, data_fetcher) else None

    def _lean(self) -> "Hooks | None":
        """The hooks, unless something needs Lightning's own way now."""
        own_way = self._restarting or type(self.trainer.profiler) is not PassThroughProfiler  # type: ignore[attr-defined]
        return None if own_way or self.automatic_optimization._skip_backward else self._hooks

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Train on one batch.

        Raises:
            StopIteration: a hook ended the epoch with -1.
        """
        hooks = self._lean()
        if hooks is None:
            return super().advance(data_fetcher)
        trainer, progress = self.trainer, self.batch_progress
        if self.val_loop._restarting:
            self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        if not hooks.in_place(batch):
            batch = trainer.precision_plugin.convert_input(batch)
            batch = trainer.lightning_module._on_before_batch_transfer(batch, dataloader_idx=0)
            batch = call._call_strategy_hook(trainer, "batch_to_device", batch, dataloader_idx=0)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        accumulating = self._should_accumulate()
        outputs: dict[str, Any] | None = None
        stop = hooks("on_train_batch_start", batch, batch_idx) == -1
        if stop:
            progress.increment_by(0, is_last_batch=True)
        else:
            progress.increment_started()
            outputs = self._optimize(hooks, batch, batch_idx, accumulating)
        progress.increment_processed()
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=False)
            if self._num_ready_batches_reached():
                self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        if stop:
            raise StopIteration
        hooks("on_train_batch_end", outputs, batch, batch_idx)
        if self._results:
            trainer._logger_connector.on_batch_end()
        self._results.batch = self._results.batch_size = None
        progress.increment_completed()
        if self._results:
            trainer._logger_connector.update_train_step_metrics()

    def _optimize(self, hooks: "Hooks", batch: Any, batch_idx: int, accumulating: bool) -> dict[str, Any]:
        """Forward, backward, and the optimizer's step if it is due; what `training_step` gave."""
        optimizer = self.trainer.optimizers[0]
        counts = self.automatic_optimization.optim_progress.optimizer
        result: ClosureResult | None = None

        def evaluate() -> Tensor | None:
            nonlocal result
            with torch.enable_grad():
                result = hooks.training_step(batch, batch_idx)
                if batch_idx % self.trainer.accumulate_grad_batches == 0:
                    counts.zero_grad.increment_ready()
                    hooks("on_before_zero_grad", optimizer)
                    counts.zero_grad.increment_started()
                    self._zero_grad(optimizer)
                    counts.zero_grad.increment_completed()
                if result.closure_loss is not None:
                    hooks("on_before_backward", result.closure_loss)
                    hooks.backward(result.closure_loss)
                    hooks("on_after_backward")
            return result.loss

        def closure() -> Tensor | None:
            loss = evaluate()
            hooks("on_before_optimizer_step", optimizer)
            return loss

        if accumulating:
            evaluate()
        else:
            counts.step.increment_ready()
            optimizer.step(closure=closure)  # type: ignore[arg-type]
            counts.step.increment_completed()
        assert result is not None
        return {} if result.loss is None else result.asdict()

    def _zero_grad(self, optimizer: Optimizer) -> None:
        """torch's own, without its look for a profiler."""
        if type(optimizer).zero_grad is not Optimizer.zero_grad:
            return optimizer.zero_grad()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """Validate where it is due."""
        trainer = self.trainer
        if (
            self._lean() is None
            or self._skip_next_val
            or trainer.should_stop
            or self._should_check_val_fx(data_fetcher)
        ):
            return super().on_advance_end(data_fetcher)
        if trainer.lr_scheduler_configs:
            self.update_lr_schedulers("step", update_plateau_schedulers=True)
        if not self._should_accumulate():
            self._batches_that_stepped += 1
        if trainer.received_sigterm:
            return super().on_advance_end(data_fetcher)


class Hooks:
    """What a plain step calls.

    Args:
        trainer: its callbacks are asked first, then its module.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        module = trainer.lightning_module
        self.trainer, self.module, self.state = trainer, module, vars(module)
        self.device = trainer.strategy.root_device
        self.takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        self.callbacks = {
            name: [getattr(callback, name) for callback in trainer.callbacks if is_overridden(name, callback)]  # type: ignore[attr-defined]
            for name in HOOKS
        }
        self.own = {name: getattr(module, name) if is_overridden(name, module) else None for name in HOOKS}

    def __call__(self, name: str, *arguments: Any) -> Any:
        """Call a hook; what the module's own gave."""
        callbacks, own = self.callbacks[name], self.own[name]
        if not callbacks and own is None:
            return None
        before, self.state["_current_fx_name"] = self.state["_current_fx_name"], name
        for callback in callbacks:
            callback(self.trainer, self.module, *arguments)
        answer = own(*arguments) if own is not None else None
        self.state["_current_fx_name"] = before
        return answer

    def training_step(self, batch: Any, batch_idx: int) -> ClosureResult:
        """The module's step, in its number format."""
        before, self.state["_current_fx_name"] = self.state["_current_fx_name"], "training_step"
        with self.trainer.strategy.precision_plugin.train_step_context():
            output = (
                self.module.training_step(batch, batch_idx) if self.takes_index else self.module.training_step(batch)
            )
        self.state["_current_fx_name"] = before
        normalize = self.trainer.accumulate_grad_batches
        if normalize == 1 and isinstance(output, Tensor):
            return ClosureResult(output)
        return ClosureResult.from_training_step_output(output, normalize)

    def backward(self, loss: Tensor) -> None:
        """The gradients."""
        before, self.state["_current_fx_name"] = self.state["_current_fx_name"], "backward"
        self.module.backward(loss)
        self.state["_current_fx_name"] = before

    def in_place(self, batch: Any) -> bool:
        """Whether a batch, a tensor or a flat tuple of them, is on the device in the format that is computed in."""
        tensors = batch if isinstance(batch, tuple | list) else (batch,)
        return all(
            (part.device == self.device and part.dtype not in (torch.float64, torch.float16, torch.bfloat16))
            if isinstance(part, Tensor)
            else part is None or isinstance(part, bool | int | float | str)
            for part in tensors
        )


def plain(trainer: pl.Trainer, data_fetcher: _DataFetcher) -> bool:
    """Whether nothing in this run needs Lightning's own way of a step."""
    module, datamodule, plugin = (
        trainer.lightning_module,
        getattr(trainer, "datamodule", None),
        trainer.precision_plugin,
    )
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and trainer.strategy.model is module
        and type(plugin) in (Precision, MixedPrecision)
        and getattr(plugin, "scaler", None) is None
        and module.automatic_optimization
        and len(trainer.optimizers) == 1
        and not trainer.gradient_clip_val
        and not isinstance(data_fetcher, _DataLoaderIterDataFetcher)
        and not any(is_overridden(name, module) for name in TRANSFER + STEPPING)
        and not (datamodule is not None and any(is_overridden(name, datamodule) for name in TRANSFER))
    )
