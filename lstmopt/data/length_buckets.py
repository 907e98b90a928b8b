"""Training batches of similar length."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lstmopt.data.batch_indices import BatchIndices
from lstmopt.data.permutation import Permutation

POOL = 50  # batches among which sequences are sorted: more make lengths more alike, and batches less random


class LengthBuckets(BatchIndices):
    """Batches of sequences of similar length, so that little of a batch is padding.

    The samples are put in a random order and cut into pools of 50 batches; each pool is sorted by length and cut into
    batches, and these are read in a random order. It is a function of (seed, epoch) alone, and every sample is read
    once an epoch.

    Args:
        lengths: of all samples, `[N]`.
        batch_size: samples per batch; one batch may be smaller.
        seed: seed of the orders.

    Reference: Khomenko et al. 2016, Accelerating recurrent neural network training using sequence bucketing.
    """

    def __init__(self, lengths: Tensor, batch_size: int, seed: int) -> None:
        super().__init__(len(lengths), batch_size, True, seed, lengths.device)
        self.lengths = lengths

    def __iter__(self) -> Iterator[Tensor]:
        seed, pool = (self.seed % 2**64, self.epoch), POOL * self.batch_size
        order, lengths = Permutation(self.n, *seed), self.lengths.cpu()
        skip, self.skip = self.skip, 0
        for number in range(skip // POOL, -(-self.n // pool)):
            index = torch.from_numpy(order(number * pool, min((number + 1) * pool, self.n)))
            batches = index[lengths[index].argsort(stable=True)].to(self.device).split(self.batch_size)
            places = Permutation(len(batches), *seed, number)(0, len(batches))
            yield from [batches[place] for place in places][max(skip - number * POOL, 0) :]
