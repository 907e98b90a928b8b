"""One LSTM layer in bfloat16 on a CPU with AMX: `lstm_amx.cpp` as operators of torch with gradients."""

import ctypes
import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lstmopt.kernels import build, lstm_cpu
from lstmopt.kernels.build import Unavailable
from lstmopt.kernels.lstm_cpu import GATES, Operators, at, strided

TILE = 16  # rows that the kernel reads at once
NARROWEST = 17  # units: fewer are filled up to 32, and torch's kernel is as fast (docs/performance.md)
FORMAT = torch.bfloat16
library = functools.partial(build.library, "lstm_amx")

_operators = torch.library.Library("lstmopt", "FRAGMENT")
_operators.define(
    "lstm_layer_bf16(Tensor x, Tensor h, Tensor c, Tensor of_input, Tensor of_hidden, Tensor bias, bool keep)"
    " -> (Tensor, Tensor, Tensor)"
)
_operators.define(
    "lstm_layer_bf16_backward(Tensor x, Tensor of_input, Tensor of_hidden, Tensor first_h, Tensor first_c, Tensor h,"
    " Tensor c, Tensor gates, Tensor? d_out, Tensor? d_last_c, bool of_x) -> Tensor[]"
)


@functools.cache
def check() -> None:
    """Build the kernel, and compare it with torch's on a small layer.

    Raises:
        Unavailable: this CPU has no AMX, or the kernel cannot be built, or what it computes here differs.
    """
    if not torch.cpu._is_amx_tile_supported():
        raise Unavailable("this CPU has no AMX")
    if not library().lstm_lanes():
        raise Unavailable("this process may not use AMX")
    lstm_cpu.compare(run, 2e-2)


@functools.cache
def here() -> bool:
    """Whether it can be had."""
    try:
        check()
    except Unavailable:
        return False
    return True


def beaten(hidden_size: int, input_size: int) -> bool:
    """Whether torch's kernel is as fast for a layer."""
    return hidden_size < NARROWEST


def takes(lstm: nn.LSTM, x: Tensor, dtype: torch.dtype) -> bool:
    """Whether the layers of an LSTM can run here; `dtype` is that of the products."""
    return dtype == FORMAT and x.dtype in (torch.float32, FORMAT) and lstm_cpu.fits(lstm, x) and here()


def run(x: Tensor, state: tuple[Tensor, Tensor], weights: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
    """A layer over x `[T, B, I]` from the state (h, c) `[directions, B, H]`; weights are in float32.

    Returns:
        The output `[T, B, directions * H]` in bfloat16, and the last c of each direction in float32.
    """
    h, c = state
    return lstm_cpu.directions(OPERATORS, library().lstm_lanes(), x, (h.to(FORMAT), c.float()), weights)


def _laid_out(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _rows(x), _rows(h), c.contiguous()


def _rows(values: Tensor) -> Tensor:
    """In bfloat16, the last dimension filled up to an even one, and with memory behind it that tiles may read."""
    *shape, wide = values.shape
    made = _room([*shape, wide + wide % 2])
    made[..., :wide] = values
    if wide % 2:
        made[..., wide:] = 0
    return made


def _room(shape: Sequence[int]) -> Tensor:
    *others, wide = shape
    rows = 1
    for size in others:
        rows *= size
    return torch.empty(rows + TILE, wide, dtype=FORMAT)[:rows].view(*shape)


def _forward(
    x: Tensor, h: Tensor, c: Tensor, of_input: Tensor, of_hidden: Tensor, bias: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    (steps, batch, inputs), hidden = x.shape, of_hidden.shape[1]
    out, cells = _room([steps, batch, hidden]), c.new_empty(steps, batch, hidden)
    gates = x.new_empty(steps if keep else 0, batch, GATES * hidden)
    of_input = F.pad(of_input, (0, inputs - of_input.shape[1]))
    sizes = map(ctypes.c_long, (steps, batch, inputs, hidden))
    library().lstm_forward(
        *sizes, *map(at, (x, of_input, of_hidden, bias, h, c, out, cells)), at(gates if keep else None),
        torch.get_num_threads(),
    )  # fmt: skip
    return out, cells, gates


def _backward(
    x: Tensor, of_input: Tensor, of_hidden: Tensor, first_h: Tensor, first_c: Tensor, h: Tensor, c: Tensor,
    gates: Tensor, d_out: Tensor | None, d_last_c: Tensor | None, of_x: bool,
) -> list[Tensor]:  # fmt: skip
    (steps, batch, inputs), hidden, given = x.shape, of_hidden.shape[1], of_input.shape[1]
    of_input = F.pad(of_input, (0, inputs - given))
    d_x = c.new_empty(steps if of_x else 0, batch, inputs)
    d_of_input, d_of_hidden, d_bias = (
        torch.empty_like(of_input),
        torch.empty_like(of_hidden),
        c.new_empty(GATES * hidden),
    )
    d_h, d_c = torch.empty_like(first_c), torch.empty_like(first_c)
    sizes = map(ctypes.c_long, (steps, batch, inputs, hidden))
    library().lstm_backward(
        *sizes, *map(at, (x, of_input, of_hidden, first_h, first_c, h, c, gates)), *strided(d_out),
        *map(at, (d_last_c, d_x if of_x else None, d_of_input, d_of_hidden, d_bias, d_h, d_c)),
        torch.get_num_threads(),
    )  # fmt: skip
    return [d_x[..., :given], d_h, d_c, d_of_input[:, :given], d_of_hidden, d_bias]


_operators.impl("lstm_layer_bf16", _forward, "CPU")
_operators.impl("lstm_layer_bf16_backward", _backward, "CPU")
OPERATORS = Operators(torch.ops.lstmopt.lstm_layer_bf16, torch.ops.lstmopt.lstm_layer_bf16_backward, _laid_out)
