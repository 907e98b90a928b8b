"""Which samples stand in which batch."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from lstmopt.data.permutation import Permutation

AHEAD = 32  # batches whose numbers are drawn at once


class BatchIndices(Sampler[Tensor]):
    """Batches of sample numbers whose order is a function of (seed, epoch) alone.

    The order is never held as a whole, so that it takes no more memory for more samples.

    Args:
        n: number of samples.
        batch_size: samples per batch; the last batch may be smaller.
        shuffle: a new permutation every epoch.
        seed: seed of the permutations.
        device: where the numbers are wanted.
    """

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int, device: torch.device | str = "cpu") -> None:
        self.n, self.batch_size, self.shuffle, self.seed, self.device = n, batch_size, shuffle, seed, device
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = Permutation(self.n, self.seed % 2**64, self.epoch) if self.shuffle else None
        skip, self.skip = self.skip, 0
        for start in range(skip * self.batch_size, self.n, AHEAD * self.batch_size):
            stop = min(start + AHEAD * self.batch_size, self.n)
            numbers = torch.arange(start, stop) if order is None else torch.from_numpy(order(start, stop))
            yield from numbers.to(self.device).split(self.batch_size)
