"""The three ways in which samples lie in memory: windows of a series, sequences, and text."""

from typing import Any

import torch
from torch import Tensor

from lstmopt.data.batch import Batch
from lstmopt.data.batch_indices import BatchIndices
from lstmopt.data.length_buckets import LengthBuckets

SHAPES = 16  # different numbers of steps that batches of unequal lengths may have


class Windows:
    """Sliding windows of a multivariate series, read by index and never materialised.

    A window is a row of an overlapping view of the series, so that a batch is one gather of long rows; where the
    windows begin is kept as ranges. Beside the series itself nothing grows with its length.

    Args:
        series: `[N, F]` float32, shared by all parts of a data set.
        ranges: first rows of the windows, range after range.
        input_length: rows T of input per window.
        horizon: rows H to predict after the input.
        target_index: the C columns to predict.
    """

    def __init__(
        self, series: Tensor, ranges: list[range], input_length: int, horizon: int, target_index: list[int]
    ) -> None:
        self.series, self.ranges = series.contiguous(), ranges
        self.input_length, self.horizon, self.target_index = input_length, horizon, target_index
        self.device = series.device
        length, features = input_length + horizon, series.shape[1]
        self._in_a_row = len(ranges) == 1 and ranges[0].step == 1  # then sample numbers are rows of a view
        first = ranges[0].start if self._in_a_row else 0
        shape = (max(len(series) - length + 1 - first, 0), length, features)
        self._rows = self.series[first:].as_strided(shape, (features, features, 1))
        self._parts = (input_length, horizon)
        counts = torch.tensor([len(numbers) for numbers in ranges])
        ends = counts.cumsum(0)
        self._count = int(ends[-1])
        steps = torch.tensor([numbers.step for numbers in ranges])
        offsets = torch.tensor([numbers.start for numbers in ranges]) - (ends - counts) * steps
        self._ends, self._steps, self._offsets = (part.to(self.device) for part in (ends, steps, offsets))
        self._all_columns = target_index == list(range(features))
        self._targets = torch.tensor(target_index, device=self.device)

    def arguments(self) -> dict[str, Any]:
        """What it was made from."""
        names = ("series", "ranges", "input_length", "horizon", "target_index")
        return {name: getattr(self, name) for name in names}

    def __len__(self) -> int:
        return self._count

    def starts(self, index: Tensor) -> Tensor:
        """First rows of the windows `index` `[B]`."""
        group = torch.searchsorted(self._ends, index, right=True)
        return index * self._steps[group] + self._offsets[group]

    def batch(self, index: Tensor) -> Batch:
        """x `[B, T, F]`, y `[B, H, C]`."""
        window = self._rows.index_select(0, index if self._in_a_row else self.starts(index))
        past, future = window.split_with_sizes(self._parts, 1)
        return Batch(past, future if self._all_columns else future.index_select(2, self._targets))


class Sequences:
    """Whole sequences, padded at the end.

    A batch is cut to its longest sequence, rounded up to a multiple of a 16th of T: kernels are made anew for every
    number of steps that they meet.

    Args:
        x: `[N, T, F]` float32.
        y: `[N, ...]`; where it has a step dimension like x (`per_step`), it is cut likewise.
        lengths: valid steps `[N]` int64, or None where all have T.
        per_step: y has a label for each step (`[N, T, ...]`).
    """

    def __init__(self, x: Tensor, y: Tensor, lengths: Tensor | None = None, per_step: bool = False) -> None:
        self.x, self.y, self.lengths, self.per_step = x, y, lengths, per_step
        self.device = x.device

    def arguments(self) -> dict[str, Any]:
        """What it was made from."""
        return {"x": self.x, "y": self.y, "lengths": self.lengths, "per_step": self.per_step}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        """x `[B, T', F]`; of T' there are at most 16."""
        if self.lengths is None:
            return Batch(self.x.index_select(0, index), self.y.index_select(0, index))
        lengths = self.lengths[index]
        unit = -(-self.x.shape[1] // SHAPES)
        steps = -(-int(lengths.max()) // unit) * unit
        y = self.y[:, :steps] if self.per_step else self.y
        return Batch(self.x[:, :steps].index_select(0, index), y.index_select(0, index), lengths)

    def indices(self, batch_size: int, shuffle: bool, seed: int) -> BatchIndices:
        """The order in which a loader reads: in training, sequences of similar length together."""
        if shuffle and self.lengths is not None and bool((self.lengths != self.lengths[0]).any()):
            return LengthBuckets(self.lengths, batch_size, seed)
        return BatchIndices(len(self), batch_size, shuffle, seed, self.device)


class Text:
    """Stretches of a token stream; the label of a step is the next token.

    Args:
        tokens: `[N]` int64.
        length: tokens T per sample; samples do not overlap.
    """

    def __init__(self, tokens: Tensor, length: int) -> None:
        count = (len(tokens) - 1) // length
        self.tokens, self.length, self.device = tokens, length, tokens.device
        self.x = tokens[: count * length].view(count, length)
        self.y = tokens[1 : count * length + 1].view(count, length)

    def arguments(self) -> dict[str, Any]:
        """What it was made from."""
        return {"tokens": self.tokens, "length": self.length}

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, index: Tensor) -> Batch:
        """x `[B, T]`, y `[B, T]`."""
        return Batch(self.x.index_select(0, index), self.y.index_select(0, index))
