"""One process' part of every batch."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import Sampler


class Shares(Sampler[Tensor]):
    """The batches of all processes together, of each of which one process reads its part.

    Sample `i` of a batch is read by process `i % world_size`, so that parts of batches sorted by length are alike. A
    last batch may leave parts that differ by one sample. Where it has fewer samples than there are processes, in
    training all read the whole of it, whose mean gradient is the same; otherwise some read nothing.

    Args:
        indices: the batches, with `set_epoch` and `skip`, in an order that is the same in all processes.
        rank: of this process.
        world_size: how many there are.
        training: no part may be empty.
    """

    def __init__(self, indices: Any, rank: int, world_size: int, training: bool) -> None:
        self.indices, self.rank, self.world_size, self.training = indices, rank, world_size, training

    @property
    def skip(self) -> int:
        """Batches that the next epoch leaves out."""
        return int(self.indices.skip)

    @skip.setter
    def skip(self, batches: int) -> None:
        self.indices.skip = batches

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.indices.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Tensor]:
        for index in self.indices:
            whole = self.training and len(index) < self.world_size
            yield index if whole else index[self.rank :: self.world_size]
