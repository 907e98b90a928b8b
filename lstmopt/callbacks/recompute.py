"""Activations computed twice instead of kept."""

from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lstmopt.data.batch import Batch
from lstmopt.errors import ConfigError
from lstmopt.models.locked_dropout import LockedDropout
from lstmopt.models.sequence_model import State
from lstmopt.module import LSTMModule
from lstmopt.tasks.task import valid_steps


class Recompute(pl.Callback):
    """Keep the LSTM's state every `chunk_length` steps only; the backward pass computes a chunk's activations again.

    With `LSTMModule` the head and the loss are inside the chunk where the task has an output at every step, so that
    neither outputs nor predictions are ever whole. In another module every `nn.LSTM` is run in chunks, and its output
    is kept. It costs one more forward pass.

    Args:
        chunk_length: steps between two kept states; the root of the sequence's length needs the least memory.

    Raises:
        ConfigError: a model reads from both ends, works channel by channel, or has dropout masks over whole sequences;
            another module has no LSTM.

    Reference: Chen et al. 2016, Training deep nets with sublinear memory cost; Gruslys et al. 2016.
    """

    def __init__(self, chunk_length: int = 64) -> None:
        self.chunk_length = chunk_length
        self._replaced: list[tuple[nn.Module, str]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put the other way to the loss in place."""
        if stage != "fit":
            return
        lstms = [module for module in pl_module.modules() if isinstance(module, nn.LSTM)]
        if any(lstm.bidirectional for lstm in lstms):
            raise ConfigError("an LSTM that reads from both ends needs the whole sequence", "type memory=none")
        if isinstance(pl_module, LSTMModule):
            model = pl_module.model
            if model.per_channel or any(isinstance(module, LockedDropout) for module in model.modules()):
                raise ConfigError("this model works on whole sequences (segments, dropout masks)", "type memory=none")
            self._replace(pl_module, "training_loss", partial(loss_in_chunks, pl_module, self.chunk_length))
        else:
            if not lstms:
                raise ConfigError("recompute needs an nn.LSTM, and this module has none", "leave Recompute out")
            for lstm in lstms:
                self._replace(lstm, "forward", partial(lstm_in_chunks, lstm, lstm.forward, self.chunk_length))

    def _replace(self, module: nn.Module, name: str, function: Any) -> None:
        object.__setattr__(module, name, function)
        self._replaced.append((module, name))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._put_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the module as it was."""
        self._put_back()

    def _put_back(self) -> None:
        while self._replaced:
            object.__delattr__(*self._replaced.pop())


def loss_in_chunks(module: LSTMModule, chunk_length: int, batch: Batch) -> Tensor:
    """The value and the gradients of `LSTMModule.training_loss`, chunk by chunk."""
    task, model = module.task, module.model
    if not task.per_step:
        return _loss_of_one_output(module, chunk_length, batch)
    labels = task.labels(batch)

    def run(part: Batch, state: State | None) -> tuple[Tensor, State]:
        x, context = task.encode(part)
        out, state = model(x, part.lengths, state)
        return task.loss(task.decode(out, context), part), state

    losses = []
    state: State | None = None
    for part in _chunks(batch, chunk_length):
        loss, state = checkpoint(run, part, state, use_reentrant=False)
        losses.append(loss * (task.labels(part) / max(labels, 1)))
    return torch.stack(losses).sum()


def _loss_of_one_output(module: LSTMModule, chunk_length: int, batch: Batch) -> Tensor:
    """For tasks that read one output per sequence: the last is taken from the chunk that it lies in, and the mean of
    all is their sum over the chunks, divided in the end."""
    task, model = module.task, module.model
    x, context = task.encode(batch)
    mean = bool(model.return_sequences) and task.pooling == "mean"

    def run(part: Batch, state: State | None) -> tuple[Tensor, State]:
        lengths = None if part.lengths is None else part.lengths.clamp(min=1)
        out, state = model(part.x, lengths, state)
        if mean:
            digits = torch.promote_types(out.dtype, torch.float32)  # a long sum needs more than a short format has
            valid = valid_steps(part, out.shape[1])[..., None]
            return torch.where(valid, out, 0.0).sum(dim=1, dtype=digits), state
        return (model.last(out, lengths) if out.ndim == 3 else out), state

    hidden: Tensor | None = None
    state: State | None = None
    for part in _chunks(batch._replace(x=x, y=batch.y[:, None]), chunk_length):
        out, state = checkpoint(run, part, state, use_reentrant=False)
        if hidden is None:
            hidden = out
        elif mean:
            hidden = hidden + out
        else:
            here = None if part.lengths is None else (part.lengths > 0)[:, None].to(out.device)
            hidden = out if here is None else torch.where(here, out, hidden)
    assert hidden is not None
    if mean:
        hidden = hidden / valid_steps(batch, x.shape[1]).sum(dim=1, keepdim=True)
    return task.loss(task.decode(hidden, context), batch)


def _chunks(batch: Batch, length: int) -> list[Batch]:
    parts = []
    for start in range(0, batch.x.shape[1], length):
        x, y = batch.x[:, start : start + length], batch.y[:, start : start + length]
        lengths = None if batch.lengths is None else (batch.lengths - start).clamp(0, x.shape[1])
        parts.append(Batch(x, y, lengths, batch.starts and start == 0))
    return parts


def lstm_in_chunks(
    lstm: nn.LSTM, forward: Any, chunk_length: int, input: Any, hx: State | None = None, lengths: Tensor | None = None
) -> tuple[Any, State]:
    """`forward` of an nn.LSTM, chunk by chunk; packed sequences, single sequences and evaluation as they are."""
    if not isinstance(input, Tensor) or input.ndim != 3 or not torch.is_grad_enabled():
        return forward(input, hx) if lengths is None else forward(input, hx, lengths)
    outs, start = [], 0
    for part in input.split(chunk_length, dim=1 if lstm.batch_first else 0):
        steps = part.shape[1 if lstm.batch_first else 0]
        inside = [] if lengths is None else [(lengths - start).clamp(0, steps)]
        out, hx = checkpoint(forward, part, hx, *inside, use_reentrant=False)
        outs.append(out)
        start += steps
    assert hx is not None
    return torch.cat(outs, dim=1 if lstm.batch_first else 0), hx
