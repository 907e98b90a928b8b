"""One LSTM layer in float32 on a CPU, compiled for it: `lstm_cpu.cpp` as operators of torch with gradients."""

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lstmopt.kernels import build
from lstmopt.kernels.build import Unavailable

GATES = 4
WIDEST = 256  # of H + I: beyond, torch's kernel is as fast (docs/performance.md)
FORMAT = torch.float32
library = functools.partial(build.library, "lstm_cpu")

_operators = torch.library.Library("lstmopt", "DEF")
_operators.define(
    "lstm_layer(Tensor x, Tensor h, Tensor c, Tensor of_input, Tensor of_hidden, Tensor bias, bool keep)"
    " -> (Tensor, Tensor, Tensor)"
)
_operators.define(
    "lstm_layer_backward(Tensor x, Tensor of_input, Tensor of_hidden, Tensor first_h, Tensor first_c, Tensor h,"
    " Tensor c, Tensor gates, Tensor? d_out, Tensor? d_last_c, bool of_x) -> Tensor[]"
)


@functools.cache
def check() -> None:
    """Build the kernel, and compare it with torch's on a small layer.

    Raises:
        Unavailable: it cannot be built here, or what it computes on this CPU differs.
    """
    library()
    compare(run, 1e-4)


Run = Callable[[Tensor, tuple[Tensor, Tensor], Sequence[Sequence[Tensor]]], tuple[Tensor, Tensor]]


def compare(run: Run, tolerance: float) -> None:
    """Compare what a kernel computes with what torch's computes in float32, on a small layer.

    Raises:
        Unavailable: they differ by more than `tolerance` of the number or of the largest beside it.
    """
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator)
    weights = [0.3 * draw(size) for size in ((96, 5), (96, 24), (96,), (96,))]
    given = [draw(4, 7, 5), draw(1, 7, 24), draw(1, 7, 24), *weights]
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        leaves = [tensor.requires_grad_() for tensor in given]
        out, c = run(leaves[0], (leaves[1], leaves[2]), [leaves[3:]])
        expected, _, last = torch.lstm(leaves[0], leaves[1:3], leaves[3:], True, 1, 0.0, False, False, False)
        own, torchs = (
            [*torch.autograd.grad(a.sum() + b.square().sum(), leaves), a, b] for a, b in ((out, c), (expected, last))
        )
    for one, other in zip(own, torchs, strict=True):
        if not torch.allclose(one.float(), other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max())):
            raise Unavailable("what it computes on this CPU is not what torch's kernel computes")


def beaten(hidden_size: int, input_size: int) -> bool:
    """Whether torch's kernel is as fast for a layer."""
    return hidden_size + input_size > WIDEST


def takes(lstm: nn.LSTM, x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the layers of an LSTM that are not too wide can run here; `dtype` is that of the products."""
    return x.dtype == dtype == FORMAT and fits(lstm, x)


def fits(lstm: nn.LSTM, x: Tensor) -> bool:
    """Whether the kernels of this package compute what such an LSTM with weights in float32 does, here and now."""
    return (
        x.device.type == "cpu"
        and lstm.weight_ih_l0.dtype == torch.float32
        and not lstm.proj_size
        and bool(lstm.bias)
        and bool(torch.backends.mkldnn.enabled)  # off: second derivatives are wanted, or torch's plain loop
        and x.numel() > 0
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
    )


def run(x: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """A layer over x `[T, B, I]` from the state (h, c) `[directions, B, H]`.

    Args:
        x: the input.
        state: h and c of each direction.
        weights: of each direction, as `nn.LSTM.all_weights` has them.

    Returns:
        The output `[T, B, directions * H]` and the last c of each direction, as torch.lstm gives them.
    """
    h, c = state
    return directions(OPERATORS, library().lstm_lanes(), x, (h.to(x.dtype), c.to(x.dtype)), weights)


class Operators(NamedTuple):
    """A kernel: its operators, and how they want x, h and c in memory."""

    forward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    backward: Callable[..., list[Tensor]]
    laid_out: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def directions(
    operators: Operators, lanes: int, x: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Sequence[Tensor]]
) -> tuple[Tensor, Tensor]:
    """`run` by a kernel that takes hidden sizes in multiples of `lanes`."""
    outs, last = [], []
    for direction, of_direction in enumerate(weights):
        h, c = (part[direction] for part in state)
        out, c = _filled(operators, lanes, x.flip(0) if direction else x, h, c, of_direction)
        outs.append(out.flip(0) if direction else out)
        last.append(c)
    return (outs[0] if len(outs) == 1 else torch.cat(outs, dim=2)), torch.stack(last)


def _filled(
    operators: Operators, lanes: int, x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """One direction; units without weights, which stay 0, fill the hidden size up to what the kernel takes."""
    of_input, of_hidden, *biases = weights
    bias = biases[0] + biases[1]
    (_, inputs), (_, hidden) = of_input.shape, of_hidden.shape
    more = -hidden % lanes
    if not more:
        return Layer.apply(operators, x, h, c, of_input, of_hidden, bias, torch.is_grad_enabled())
    of_input = F.pad(of_input.view(GATES, hidden, inputs), (0, 0, 0, more)).flatten(0, 1)
    of_hidden = F.pad(of_hidden.view(GATES, hidden, hidden), (0, more, 0, more)).flatten(0, 1)
    bias = F.pad(bias.view(GATES, hidden), (0, more)).flatten()
    h, c = F.pad(h, (0, more)), F.pad(c, (0, more))
    out, last = Layer.apply(operators, x, h, c, of_input, of_hidden, bias, torch.is_grad_enabled())
    return out[..., :hidden], last[:, :hidden]


class Layer(torch.autograd.Function):
    """A direction of a layer: x `[T, B, I]`, h and c `[B, H]` to the output `[T, B, H]` and the last c.

    `grad` is whether gradients are recorded where it is called: within `forward` that cannot be told.
    """

    @staticmethod
    def forward(
        ctx: Any, operators: Operators, x: Tensor, h: Tensor, c: Tensor, of_input: Tensor, of_hidden: Tensor,
        bias: Tensor, grad: bool,
    ) -> Any:  # fmt: skip
        """Run; gates and cells are kept where a gradient is asked for."""
        x, h, c = operators.laid_out(x, h, c)
        of_input, of_hidden = of_input.contiguous(), of_hidden.contiguous()
        keep = grad and any(ctx.needs_input_grad)
        out, cells, gates = operators.forward(x, h, c, of_input, of_hidden, bias, keep)
        ctx.operators = operators
        ctx.set_materialize_grads(False)
        if keep:
            ctx.save_for_backward(x, of_input, of_hidden, h, c, out, cells, gates)
        return out, cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_last_c: Tensor | None) -> Any:
        """Gradients of everything given."""
        if d_out is not None and d_out.stride(2) != 1:
            d_out = d_out.contiguous()
        d_last_c = d_last_c if d_last_c is None else d_last_c.contiguous()
        of_x = ctx.needs_input_grad[1]
        d_x, *others = ctx.operators.backward(*ctx.saved_tensors, d_out, d_last_c, of_x)
        return None, d_x if of_x else None, *others, None


def _laid_out(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()
    return x, h.contiguous(), c.contiguous()


def _forward(
    x: Tensor, h: Tensor, c: Tensor, of_input: Tensor, of_hidden: Tensor, bias: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (steps, batch, inputs), hidden = x.shape, of_hidden.shape[1]
    out, cells = x.new_empty(steps, batch, hidden), x.new_empty(steps, batch, hidden)
    gates = x.new_empty(steps if keep else 0, batch, GATES * hidden)
    sizes = map(ctypes.c_long, (steps, batch, inputs, hidden))
    library().lstm_forward(
        *sizes, *strided(x), *map(at, (of_input, of_hidden, bias, h, c, out, cells)),
        at(gates if keep else None), torch.get_num_threads(),
    )  # fmt: skip
    return out, cells, gates


def _backward(
    x: Tensor, of_input: Tensor, of_hidden: Tensor, first_h: Tensor, first_c: Tensor, h: Tensor, c: Tensor,
    gates: Tensor, d_out: Tensor | None, d_last_c: Tensor | None, of_x: bool,
) -> list[Tensor]:  # fmt: skip
    (steps, batch, inputs), hidden = x.shape, of_hidden.shape[1]
    d_x = x.new_empty(steps if of_x else 0, batch, inputs)
    d_of_input, d_of_hidden, d_bias = (
        torch.empty_like(of_input),
        torch.empty_like(of_hidden),
        x.new_empty(GATES * hidden),
    )
    d_h, d_c = torch.empty_like(first_h), torch.empty_like(first_c)
    sizes = map(ctypes.c_long, (steps, batch, inputs, hidden))
    library().lstm_backward(
        *sizes, *strided(x), *map(at, (of_input, of_hidden, first_h, first_c, h, c, gates)), *strided(d_out),
        *map(at, (d_last_c, d_x if of_x else None, d_of_input, d_of_hidden, d_bias, d_h, d_c)),
        torch.get_num_threads(),
    )  # fmt: skip
    return [d_x, d_h, d_c, d_of_input, d_of_hidden, d_bias]


def at(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where it is."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def strided(tensor: Tensor | None) -> tuple[ctypes.c_void_p, ctypes.c_long, ctypes.c_long]:
    """Where `[T, B, ...]` is, and its strides of T and B."""
    if tensor is None:
        return at(None), ctypes.c_long(0), ctypes.c_long(0)
    return at(tensor), ctypes.c_long(tensor.stride(0)), ctypes.c_long(tensor.stride(1))


_operators.impl("lstm_layer", _forward, "CPU")
_operators.impl("lstm_layer_backward", _backward, "CPU")
OPERATORS = Operators(torch.ops.lstmopt.lstm_layer, torch.ops.lstmopt.lstm_layer_backward, _laid_out)
