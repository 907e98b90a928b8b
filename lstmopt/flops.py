"""How many floating-point operations an LSTM needs, and a count of those that a step makes.

Importing this module gives `torch.utils.flop_counter` the formulas of the LSTM kernels, which count as zero without
them. Matrix products alone are counted, 2 operations for each multiplication with its addition, as torch does.
"""

import time
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, register_flop_formula

import lstmopt.kernels.lstm_amx  # noqa: F401  (brings torch.ops.lstmopt, that of lstm_cpu with it)

aten = torch.ops.aten
Shape = tuple[int, ...]


class LSTMFlops(NamedTuple):
    """Operations of one forward pass and of the backward pass after it."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Both."""
        return self.forward + self.backward


def lstm_flops(
    batch_size: int,
    steps: int,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    proj_size: int = 0,
    unequal_lengths: bool = False,
) -> LSTMFlops:
    """Operations of the fused kernels (oneDNN, cuDNN) for a batch of sequences, padded to `steps`.

    Forward, a layer and direction takes `2 * 4H * (I + H)` per token; I is 2 H above the first layer of a bidirectional
    LSTM. With a projection to P features the H of what is fed back becomes P, and `2 * H * P` are added. Backward is
    twice that: once for the gradients of inputs and states, once for those of the weights. The fused kernels have
    the gradient of the first layer's input as well, whether it is required or not, and so it is counted. Of
    `unequal_lengths` every layer has one feature more, which marks the padding (`lstmopt.models.padded_lstm`).

    Packed sequences: give `batch_size=1` and the number of valid tokens as `steps`.
    """
    directions = 2 if bidirectional else 1
    fed_back = proj_size or hidden_size
    per_token = 0
    for layer in range(num_layers):
        features = (input_size if layer == 0 else directions * fed_back) + unequal_lengths
        per_token += directions * 2 * (4 * hidden_size * (features + fed_back) + hidden_size * proj_size)
    forward = per_token * batch_size * steps
    return LSTMFlops(forward, 2 * forward)


def _tokens_times_weights(input_shape: Shape, weight_shapes: list[Shape]) -> int:
    """Every token (of a packed sequence too) meets every weight matrix once."""
    return 2 * prod(input_shape[:-1]) * sum(prod(shape) for shape in weight_shapes if len(shape) == 2)


def _mkldnn(input_shape: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return _tokens_times_weights(input_shape, list(args[:2]))  # one layer and direction a call, then biases


def _mkldnn_backward(input_shape: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * _tokens_times_weights(input_shape, list(args[:2]))


def _cudnn(input_shape: Shape, weight_shapes: list[Shape], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return _tokens_times_weights(input_shape, weight_shapes)


def _cudnn_backward(
    input_shape: Shape, weight_shapes: list[Shape], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    output_mask = kwargs.get("output_mask", args[-1])
    return (1 + output_mask[3]) * _tokens_times_weights(input_shape, weight_shapes)  # frozen weights have no gradient


def _compiled(input_shape: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return _tokens_times_weights(input_shape, list(args[2:4]))


def _compiled_backward(input_shape: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    of_input, of_hidden = args[:2]
    again = [of_hidden, *[of_input] * bool(args[-1])]  # the gradients of h and, if it is asked for, of x
    return _tokens_times_weights(input_shape, [of_input, of_hidden, *again])


for _target, _formula in {
    torch.ops.lstmopt.lstm_layer: _compiled,
    torch.ops.lstmopt.lstm_layer_backward: _compiled_backward,
    torch.ops.lstmopt.lstm_layer_bf16: _compiled,
    torch.ops.lstmopt.lstm_layer_bf16_backward: _compiled_backward,
    aten.mkldnn_rnn_layer: _mkldnn,
    aten.mkldnn_rnn_layer_backward: _mkldnn_backward,
    aten._cudnn_rnn: _cudnn,
    aten._cudnn_rnn_backward: _cudnn_backward,
}.items():
    if _target not in flop_registry:  # a later torch may bring its own
        register_flop_formula(_target)(_formula)


class FlopCount(TorchDispatchMode):
    """Adds up the operations of everything that runs while it is entered, by torch's formulas.

    What `torch.utils.flop_counter.FlopCounterMode` counts, without its hooks on every module and tensor, so that a
    step of a training can be counted while it runs.

    Attributes:
        flops: operations so far.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count it."""
        if isinstance(func, HigherOrderOperator):
            return NotImplemented
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


class BatchFlops:
    """Counts the operations of one batch of a training, between two hooks of a callback.

    Attributes:
        per_sample: operations per sample of the batch that was counted; None before that.
    """

    def __init__(self) -> None:
        self.per_sample: float | None = None
        self._mode: FlopCount | None = None

    def start(self) -> None:
        """Begin to count, unless it was done before."""
        if self.per_sample is None and self._mode is None:
            self._mode = FlopCount()
            self._mode.__enter__()

    def stop(self, batch: Any = None) -> None:
        """End it; without a batch (the step was broken off) nothing is known."""
        if self._mode is None:
            return
        mode, self._mode = self._mode, None
        mode.__exit__(None, None, None)
        if batch is not None:
            self.per_sample = mode.flops / max(samples(batch), 1)


def samples(batch: Any) -> int:
    """Samples in a batch: the first dimension of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else 0
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    return next((size for size in map(samples, parts) if size), 0)


@torch.no_grad()
def matmul_flops_per_second(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """What a square matrix product reaches here, with as many threads as torch uses: the best of a few."""
    size = 4096 if device.type == "cuda" else 512
    a = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
