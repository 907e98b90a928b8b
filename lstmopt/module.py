"""The LightningModule: a task around an LSTM, trained by an optimizer."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torchmetrics import MetricCollection

from lstmopt.data.batch import Batch
from lstmopt.distributed import together
from lstmopt.models.sequence_model import SequenceModel
from lstmopt.optim.decay_groups import decay_groups
from lstmopt.optim.second_order import SecondOrder
from lstmopt.tasks.task import Task, mean_of_steps


class LSTMModule(pl.LightningModule):
    """Trains `task` with `model`; schedules, clipping, precision and profiling come as callbacks.

    Args:
        task: encodes batches, decodes LSTM outputs; brings loss and metrics.
        model: the LSTM between them.
        optimizer: makes the optimizer from named parameters or groups of them; where it has a weight decay, biases
            are left alone.

    In several processes each trains on its part of a batch, and its loss counts as much as it has labels, so that the
    mean of the gradients is the gradient of the whole batch.

    Logged: `train/loss` every `log_every_n_steps` steps; `val/...` and `test/...` per epoch.
    """

    def __init__(self, task: Task, model: SequenceModel, optimizer: Callable[[Iterable[Any]], Optimizer]) -> None:
        super().__init__()
        task.make_head(model.output_size, model.per_channel)
        if model.return_sequences is None:
            model.return_sequences = task.per_step or task.pooling == "mean"
        self.task, self.model, self.optimizer = task, model, optimizer
        self.val_metrics = MetricCollection(dict(task.metrics()), compute_groups=False, prefix="val/")
        self.test_metrics = MetricCollection(dict(task.metrics()), compute_groups=False, prefix="test/")
        self._loss_sum = torch.zeros(())
        self._loss_count = 0
        self._counted = -1  # the newest batch in the sum
        self._seed = torch.initial_seed()
        self._second_order: SecondOrder | None = None
        self._evaluated: tuple[Tensor, Batch] | None = None

    def forward(self, batch: Batch) -> Tensor:
        """Predictions for one batch; their shape is the task's."""
        x, context = self.task.encode(batch)
        hidden, _ = self.model(x, batch.lengths)
        if self.model.return_sequences and not self.task.per_step:
            mean = self.task.pooling == "mean"
            hidden = mean_of_steps(hidden, batch) if mean else self.model.last(hidden, batch.lengths)
        return self.task.decode(hidden, context)

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss of one batch in training; memory options put another way to the same value in its place."""
        with self._second_order.forward() if self._second_order else nullcontext():
            out = self(batch)
        self._evaluated = (out, batch) if self._second_order else None
        return self.task.loss(out, batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch; an optimizer that asks for it again gets the same random numbers, and only the first
        answer, that of the weights before the step, is counted and logged."""
        self._seed_step(batch_idx)
        loss = self.training_loss(batch)
        if self.trainer.world_size > 1:
            labels = self.task.labels(batch)
            loss = loss * (labels * self.trainer.world_size / max(together.total(labels), 1))
        if batch_idx == self._counted:
            return loss
        self._counted = batch_idx
        self._loss_sum = self._loss_sum.to(loss.device) + loss.detach()
        self._loss_count += 1
        first = batch_idx % self.trainer.accumulate_grad_batches == 0  # of those that a step adds up
        if first and self.trainer.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            value = float(self._mean(loss.detach()))
            for logger in self.trainer.loggers:
                logger.log_metrics({"train/loss": value}, step=self.trainer.global_step)
        if self.trainer.is_last_batch:  # the epoch's mean, for monitors, the progress bar and results.json
            mean = self._mean(self._loss_sum) / self._loss_count
            self.log("train/loss", mean, logger=False, on_epoch=True, batch_size=1)
            self._loss_sum, self._loss_count = torch.zeros(()), 0
        return loss

    def on_train_epoch_start(self) -> None:
        """No batch of this epoch is counted."""
        self._counted = -1

    def _mean(self, value: Tensor) -> Tensor:
        """Over the processes."""
        return self.trainer.strategy.reduce(value.clone()) if self.trainer.world_size > 1 else value

    def _seed_step(self, batch_idx: int) -> None:
        """Make a step's random numbers a function of (seed, rank, epoch, batch): a resumed run draws the same, and so
        does each evaluation within a line search."""
        own = self._seed + self.global_rank * 7_368_787  # the first process draws what a single one does
        seed = ((own * 1_000_003 + self.current_epoch) * 1_000_003 + batch_idx) % 2**63
        torch.default_generator.manual_seed(seed)  # torch.manual_seed takes half a millisecond where CUDA is not in use
        if self.device.type != "cpu":
            torch.manual_seed(seed)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The gradients; an optimizer that uses curvature computes them itself."""
        if self._second_order is None or self._evaluated is None:
            return super().backward(loss, *args, **kwargs)
        (out, batch), self._evaluated = self._evaluated, None

        def sampled() -> Tensor:
            drawn = batch._replace(y=self.task.sample(out.detach(), batch))
            return self.task.loss(out, drawn) * self.task.labels(batch) ** 0.5

        self._second_order.backward(loss, out, sampled, lambda: self.training_loss(batch))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation metrics; one process may have no part of a small batch."""
        if len(batch.x):
            self.task.update(self.val_metrics, self(batch), batch)

    def on_validation_epoch_end(self) -> None:
        """Log `val/...`."""
        self.log_dict(self.val_metrics.compute())
        self.val_metrics.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test metrics."""
        if len(batch.x):
            self.task.update(self.test_metrics, self(batch), batch)

    def on_test_epoch_end(self) -> None:
        """Log `test/...`."""
        self.log_dict(self.test_metrics.compute())
        self.test_metrics.reset()

    def configure_optimizers(self) -> Optimizer:
        """The optimizer over all parameters; schedules are added by their callbacks."""
        options = getattr(self.optimizer, "keywords", {})
        make = self.optimizer
        scaled = getattr(getattr(self._trainer, "precision_plugin", None), "scaler", None) is not None
        if not scaled and all(options.get(name, 0) is None for name in ("foreach", "fused")):
            make = partial(make, fused=True)  # type: ignore[call-arg]  # a third of the time for small models; torch has it off by default
        optimizer = make(decay_groups(self) if options.get("weight_decay") else self.named_parameters())
        if isinstance(optimizer, SecondOrder):
            self._second_order = optimizer
            optimizer.watch(self)
        return optimizer

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the facts that predictions need without the data (the scaler, the names, the vocabulary), and where the
        epoch's mean loss stands."""
        checkpoint["data_spec"] = vars(self.task.spec).copy()
        total = self._loss_sum
        if self._trainer is not None and self.trainer.world_size > 1:  # a number for each process
            total = torch.tensor(together.of_each(float(total)))
        checkpoint["train_loss"] = {"sum": total.cpu(), "count": self._loss_count}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the epoch's mean loss."""
        loss = checkpoint.get("train_loss", {"sum": self._loss_sum, "count": self._loss_count})
        total = loss["sum"]
        own = total.ndim and len(total) == self.trainer.world_size
        self._loss_sum = total[self.global_rank].clone() if own else total.mean()
        self._loss_count, self._counted = loss["count"], -1

    @torch.no_grad()
    def predict_batch(self, batch: Batch) -> Tensor:
        """Predictions in evaluation mode, on whatever device the weights are; the mode is put back."""
        training = self.training
        self.eval()
        device = self.device
        out = self(self.transfer_batch_to_device(batch, device, 0))
        self.train(training)
        return out.cpu()
