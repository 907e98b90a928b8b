"""A stacked LSTM whose layers run one by one, in sizes that cuDNN has its fastest kernel for."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lstmopt.models.autocast import computed_in
from lstmopt.models.lstm import LSTM
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.sequence_model import State

OF_SIZES, OF_BATCH = 128, 8  # cuDNN's persistent kernel takes multiples of these


class SplitLayers(PaddedLSTM):
    """A `PaddedLSTM` that calls the kernel once for each layer, whatever the lengths.

    cuDNN keeps the recurrent weights of a large layer on the chip only where a call has one layer and one direction,
    numbers in float16, sizes in multiples of 128 up to 1024, and a batch of a multiple of 8 up to 128
    (`lstmopt.models.kernel.cudnn`). In float16 the sizes are filled up with zeros to those multiples, which changes no
    result: a unit without weights stays 0. The weights keep their shapes, so that checkpoints are those of `nn.LSTM`.

    Attributes:
        pad_to: fill hidden and input sizes up to multiples of this number, and batches to multiples of 8, in every
            number format; None: to 128 in float16, and not at all otherwise. Two directions and projections, which
            that kernel does not take, are left as they are.
    """

    pad_to: int | None = None

    def padded(self, batch_size: int, input_size: int, dtype: torch.dtype) -> tuple[int, int, int]:
        """Batch, input and hidden size of the kernel's call in a number format."""
        of_sizes = self.pad_to or (OF_SIZES if dtype == torch.float16 else None)
        if of_sizes is None or self.bidirectional or self.proj_size:
            return batch_size, input_size, self.hidden_size
        return _up(batch_size, OF_BATCH), _up(input_size, of_sizes), _up(self.hidden_size, of_sizes)

    def _whole(self, input: Tensor, hx: State | None) -> tuple[Tensor, State]:
        if not isinstance(input, Tensor) or input.ndim != 3:
            return super()._whole(input, hx)
        return self._by_layer(input, hx, None)

    def _run(self, x: Tensor, state: State, weights: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        (_, rows, columns), units = x.shape, self.hidden_size
        batch, inputs, hidden = self.padded(rows, columns, computed_in(x))
        if (batch, inputs, hidden) == (rows, columns, units):
            return super()._run(x, state, weights)
        ((of_input, of_hidden, *biases),) = weights
        filled = [
            _fill(of_input.view(4, units, columns), hidden, inputs).flatten(0, 1),
            _fill(of_hidden.view(4, units, units), hidden, hidden).flatten(0, 1),
            *(_fill(bias.view(4, units), hidden).flatten() for bias in biases),
        ]
        h, c = (_fill(part, batch, hidden) for part in state)
        out, c = super()._run(_fill(x, batch, inputs), (h, c), [filled])
        return out[:, :rows, :units], c[:, :rows, :units]


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _fill(values: Tensor, *sizes: int) -> Tensor:
    """Zeros behind the values of the last dimensions, up to `sizes`."""
    behind: list[int] = []
    for have, wanted in zip(reversed(values.shape), reversed(sizes), strict=False):
        behind += [0, wanted - have]
    return F.pad(values, behind)


class SplitLSTM(LSTM):
    """`LSTM` for large stacked models on a GPU: layer by layer, so that cuDNN's persistent kernel takes each of them.

    What it computes, its weights and its checkpoints are those of `LSTM` with one direction; it is made for
    `precision=fp16_mixed`.

    Args:
        input_size: features F per step.
        hidden_size: units H per layer.
        num_layers: stacked layers.
        dropout: probability of dropping a unit between layers.
        return_sequences: as for `LSTM`.
        forget_bias: as for `LSTM`.
        orthogonal: as for `LSTM`.
        pad_to: fill sizes up to multiples of this number; None: to 128 in float16, where the kernel asks for it.

    Reference: Appleyard et al. 2016, Optimizing performance of recurrent neural networks on GPUs; Diamos et al. 2016,
    Persistent RNNs.
    """

    layers = SplitLayers

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 2,
        dropout: float = 0.0,
        return_sequences: bool | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
        pad_to: int | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            dropout,
            return_sequences=return_sequences,
            forget_bias=forget_bias,
            orthogonal=orthogonal,
        )
        self.lstm.pad_to = pad_to
