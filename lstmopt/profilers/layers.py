"""What each layer of a model keeps in memory."""

from math import prod
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from lstmopt.flops import samples
from lstmopt.profilers.report import Table

OTHER = "(outside of layers)"


class KeptForBackward(torch.autograd.graph.saved_tensors_hooks):
    """While it is entered, notes what autograd keeps for the backward pass, by the layer that computes.

    Storages are counted once; parameters and tensors of the batch are there anyway and are left out.

    Args:
        module: the model.

    Attributes:
        tokens: by the name of an `nn.LSTM`, the tokens (`B * T`, packed: the valid ones) that it read.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(self._pack, lambda tensor: tensor)
        self.tokens: dict[str, int] = {}
        self._bytes: dict[int, tuple[str, int]] = {}  # by address
        self._given: set[int] = {p.untyped_storage().data_ptr() for p in module.parameters()}
        self._inside: list[str] = []
        self._handles: list[RemovableHandle] = []
        for name, layer in module.named_modules():
            if layer is not module:
                self._handles.append(layer.register_forward_pre_hook(self._opener(name)))
                self._handles.append(layer.register_forward_hook(self._close, always_call=True))

    def add_given(self, batch: Any) -> None:
        """These tensors are not kept for backward alone."""
        if isinstance(batch, Tensor):
            self._given.add(batch.untyped_storage().data_ptr())
        elif isinstance(batch, dict | list | tuple):
            for part in batch.values() if isinstance(batch, dict) else batch:
                self.add_given(part)

    def __enter__(self) -> None:
        """A new forward pass: forget the last one's."""
        self._bytes.clear()
        super().__enter__()

    def remove(self) -> None:
        """Take the hooks off the layers."""
        while self._handles:
            self._handles.pop().remove()

    def by_layer(self) -> dict[str, int]:
        """Bytes by the layer's name."""
        found: dict[str, int] = {}
        for name, size in self._bytes.values():
            found[name] = found.get(name, 0) + size
        return found

    def _opener(self, name: str) -> Any:
        def opens(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._inside.append(name)
            if isinstance(layer, nn.LSTM) and inputs:
                data = inputs[0].data if isinstance(inputs[0], PackedSequence) else inputs[0]
                self.tokens[name] = prod(data.shape[:-1])

        return opens

    def _close(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        self._inside.pop()

    def _pack(self, tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._given:
                name = self._inside[-1] if self._inside else OTHER
                self._bytes.setdefault(storage.data_ptr(), (name, storage.nbytes()))
        return tensor.detach()  # an output itself would hold its own graph, and a broken run leave both behind


def lstm_estimate(lstm: nn.LSTM, tokens: int) -> int:
    """Bytes that the equations need for backward: four gates, c and h, of each layer, direction and token."""
    size = next(lstm.parameters()).element_size()
    return tokens * lstm.num_layers * (2 if lstm.bidirectional else 1) * 6 * lstm.hidden_size * size


def state_bytes(trainer: pl.Trainer) -> int:
    """All tensors of the optimizers' states, as a checkpoint holds them."""
    return sum(_nested_bytes(optimizer.state_dict()["state"]) for optimizer in trainer.optimizers)


def _nested_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict | list | tuple):
        return sum(map(_nested_bytes, value.values() if isinstance(value, dict) else value))
    return 0


def layer_table(trainer: pl.Trainer, module: nn.Module, kept: KeptForBackward | None) -> tuple[Table, dict[str, int]]:
    """A row for each layer that has parameters or keeps something, and the sums of the columns in bytes."""
    activations = kept.by_layer() if kept is not None else {}
    seen: set[int] = set()
    rows: list[tuple[str, list[int | None]]] = []
    of_parameters = 0
    for name, layer in module.named_modules():
        own = [p for p in layer.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        weights = sum(p.numel() * p.element_size() for p in own)
        gradients = sum(p.grad.numel() * p.grad.element_size() for p in own if p.grad is not None)
        state = sum(_nested_bytes(o.state[p]) for o in trainer.optimizers for p in own if p in o.state)
        of_parameters += state
        tokens = kept.tokens.get(name) if kept is not None else None
        estimate = lstm_estimate(layer, tokens) if isinstance(layer, nn.LSTM) and tokens else None
        if own or name in activations:
            rows.append(
                (name or "(the module itself)", [weights, gradients, state, activations.get(name, 0), estimate])
            )
    if OTHER in activations:
        rows.append((OTHER, [0, 0, 0, activations[OTHER], None]))
    rest = state_bytes(trainer) - of_parameters
    if rest > 0:
        rows.append(("(optimizer, of no layer)", [0, 0, rest, 0, None]))
    names = ("parameters", "gradients", "optimizer", "kept", "estimate")
    totals = {column: sum(cells[k] or 0 for _, cells in rows) for k, column in enumerate(names)}
    rows.append(("all", [totals[column] for column in names]))
    shown = [(name, *("" if n is None else f"{n / 1e6:.3f}" for n in cells)) for name, cells in rows]
    note = (
        "MB. kept: held for backward, measured (batch and parameters left out). estimate: what an LSTM's equations"
        " need, 24 H bytes a token and layer in float32; oneDNN and cuDNN keep work space besides."
    )
    return Table("Layers", ("layer", *names), shown, note), totals


def advice(totals: dict[str, int], batch: Any) -> list[str]:
    """What to change to make a training fit."""
    fixed = sum(totals[column] for column in ("parameters", "gradients", "optimizer"))
    kept, size = totals["kept"], samples(batch)
    activations = (
        f"Activations take {kept / 1e6:.1f} MB for {size} samples: data.batch_size={max(size // 2, 1)} frees about"
        f" {kept / 2e6:.1f} MB, half the sequence length as much, memory=recompute most of it."
    )
    rest = (
        f"Parameters, gradients and optimizer take {fixed / 1e6:.1f} MB whatever the batch: a smaller"
        " model.hidden_size, or an optimizer with less state (optimizer=sgd)."
    )
    return [activations, rest] if kept > fixed else [rest, activations]
