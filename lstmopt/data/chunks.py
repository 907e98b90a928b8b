"""Sequences cut in time, one piece after the other, for a state that is carried along."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from lstmopt.data.batch import Batch
from lstmopt.data.splits import Sequences, Text
from lstmopt.errors import DataError


class Chunk(NamedTuple):
    """Steps `start` to `stop` of the sequences `rows` `[B]`."""

    rows: Tensor
    start: int
    stop: int


class Chunks:
    """A training part whose batches are pieces of the same sequences, in their order.

    A text is laid out as `batch_size` rows of equal length, each going on where it stopped in the batch before.
    Sequences are put into groups of similar length, once; the groups are read in a new order every epoch, each from its
    first piece to its last. A sequence that has ended has length 0 in the pieces that follow.

    Args:
        split: a text, or sequences with a label at every step.
        batch_size: rows or sequences per batch.
        length: steps per piece; None is the text's own length per sample, or 32.
        random_length: draw the lengths of the pieces anew every epoch: `length` with probability 0.95, else half of
            it, with a standard deviation of 5 steps (Merity et al. 2018), then stretched so that their number stays
            the same.

    Raises:
        DataError: a text is shorter than a row for each of a batch.
    """

    def __init__(self, split: Sequences | Text, batch_size: int, length: int | None, random_length: bool) -> None:
        if isinstance(split, Text):
            self.length = length or split.x.shape[1]
            self.sequences, self.shuffle = _rows(split, batch_size), False
        else:
            self.length = length or 32
            self.sequences, self.shuffle = split, True
        self.batch_size, self.random_length = batch_size, random_length

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, chunk: Chunk) -> Batch:
        """The piece; `starts` says whether it is the first of its sequences."""
        rows, steps = chunk.rows, slice(chunk.start, chunk.stop)
        part = self.sequences
        lengths = None
        if part.lengths is not None:
            lengths = (part.lengths[rows] - chunk.start).clamp(0, chunk.stop - chunk.start)
        return Batch(part.x[rows, steps], part.y[rows, steps], lengths, chunk.start == 0)

    def indices(self, batch_size: int, shuffle: bool, seed: int) -> "ChunkIndices":
        """The order in which a loader reads."""
        return ChunkIndices(self, seed)


class ChunkIndices(Sampler[Chunk]):
    """The pieces of an epoch: a function of (seed, epoch) alone, and always as many.

    Args:
        chunks: what is cut.
        seed: seed of the groups, of their order and of random lengths.
    """

    def __init__(self, chunks: Chunks, seed: int) -> None:
        self.chunks, self.seed = chunks, seed
        self.epoch = 0
        self.skip = 0
        part = chunks.sequences
        longest = torch.full((len(part),), part.x.shape[1]) if part.lengths is None else part.lengths
        mixed = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
        order = mixed[longest[mixed].argsort(stable=True)] if chunks.shuffle else torch.arange(len(part))
        self.groups = [(index, int(longest[index].max())) for index in order.split(chunks.batch_size)]

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(-(-steps // self.chunks.length) for _, steps in self.groups)

    def __iter__(self) -> Iterator[Chunk]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        count = len(self.groups)
        order = torch.randperm(count, generator=generator) if self.chunks.shuffle else torch.arange(count)
        skip, self.skip = self.skip, 0
        pieces = []
        for index, steps in (self.groups[group] for group in order.tolist()):
            cuts = self._cuts(steps, generator)
            pieces += [Chunk(index, start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]
        yield from pieces[skip:]

    def _cuts(self, steps: int, generator: torch.Generator) -> list[int]:
        """Where the pieces of a group begin, and the end."""
        length = self.chunks.length
        count = -(-steps // length)
        if not self.chunks.random_length or count == 1:
            return [*range(0, steps, length), steps]
        base = torch.where(torch.rand(count, generator=generator) < 0.95, float(length), length / 2)
        drawn = (base + 5 * torch.randn(count, generator=generator)).clamp(min=min(5, length))
        ends = (drawn.cumsum(0) / drawn.sum() * steps).round().long().tolist()
        return sorted({0, *ends}) if len({0, *ends}) == count + 1 else [*range(0, steps, length), steps]


def _rows(text: Text, rows: int) -> Sequences:
    """The text as `rows` long rows; at most `rows` - 1 tokens at its end are left out."""
    inputs, labels = text.x.flatten(), text.y.flatten()
    steps = len(inputs) // rows
    if not steps:
        raise DataError(f"the text has {len(inputs)} tokens for {rows} rows", "type a smaller data.batch_size")
    return Sequences(inputs[: rows * steps].view(rows, steps), labels[: rows * steps].view(rows, steps), per_step=True)
