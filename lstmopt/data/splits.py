"""The three ways in which samples lie in memory: windows of a series, sequences, and text."""

import torch
from torch import Tensor

from lstmopt.data.batch import Batch


class Windows:
    """Sliding windows of a multivariate series, read by index and never materialised.

    Args:
        series: `[N, F]` float32, shared by all parts of a data set.
        starts: first row of each window `[W]` int64.
        input_length: rows T of input per window.
        horizon: rows H to predict after the input.
        target_index: the C columns to predict.
    """

    def __init__(
        self, series: Tensor, starts: Tensor, input_length: int, horizon: int, target_index: list[int]
    ) -> None:
        self.series, self.starts = series, starts
        self.input_length = input_length
        self.rows = torch.arange(input_length + horizon)
        self.target_index = torch.tensor(target_index)
        self.all_columns = target_index == list(range(series.shape[1]))

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, index: Tensor) -> Batch:
        """x `[B, T, F]`, y `[B, H, C]`."""
        rows = (self.starts[index, None] + self.rows).flatten()
        window = self.series.index_select(0, rows).view(len(index), len(self.rows), -1)
        future = window[:, self.input_length :]
        y = future if self.all_columns else future.index_select(2, self.target_index)
        return Batch(window[:, : self.input_length], y)


class Sequences:
    """Whole sequences, padded at the end; a batch is cut to its longest sequence.

    Args:
        x: `[N, T, F]` float32.
        y: `[N, ...]`; where it has a step dimension like x (`per_step`), it is cut likewise.
        lengths: valid steps `[N]` int64, or None where all have T.
        per_step: y has a label for each step (`[N, T, ...]`).
    """

    def __init__(self, x: Tensor, y: Tensor, lengths: Tensor | None = None, per_step: bool = False) -> None:
        self.x, self.y, self.lengths, self.per_step = x, y, lengths, per_step

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        """x `[B, T', F]` with T' the longest of the batch."""
        x, y = self.x[index], self.y[index]
        if self.lengths is None:
            return Batch(x, y)
        lengths = self.lengths[index]
        longest = int(lengths.max())
        return Batch(x[:, :longest], y[:, :longest] if self.per_step else y, lengths)


class Text:
    """Stretches of a token stream; the label of a step is the next token.

    Args:
        tokens: `[N]` int64.
        length: tokens T per sample; samples do not overlap.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        count = (len(tokens) - 1) // length
        self.x = tokens[: count * length].view(count, length)
        self.y = tokens[1 : count * length + 1].view(count, length)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        """x `[B, T]`, y `[B, T]`."""
        return Batch(self.x[index], self.y[index])
