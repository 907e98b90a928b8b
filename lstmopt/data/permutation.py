"""A random order that takes no memory."""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6


class Permutation:
    """A pseudo-random permutation of 0 ... n - 1, any part of which is computed without the rest.

    A Feistel network over the next power of two permutes the numbers, and is walked on from those that are not below
    n until one is (cycle walking). Nothing is stored but the keys of its rounds.

    Args:
        n: how many numbers.
        seed: numbers that it is a function of.

    Reference: Black & Rogaway 2002, Ciphers with arbitrary finite domains; rounds mixed as by SplitMix64 (Steele, Lea
    & Flood 2014).
    """

    def __init__(self, n: int, *seed: int) -> None:
        self.n = n
        bits = max((n - 1).bit_length(), 8)
        self._halves = bits - bits // 2, bits // 2
        self._keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """What stands at the positions `start` to `stop`."""
        numbers = self._walk(np.arange(start, stop, dtype=np.uint64))
        outside = np.flatnonzero(numbers >= self.n)
        while len(outside):
            numbers[outside] = self._walk(numbers[outside])
            outside = outside[numbers[outside] >= self.n]
        return numbers.astype(np.int64)

    def _walk(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Once through the network; its halves may differ by a bit, and change places in every round."""
        left, right = (np.uint64(bits) for bits in self._halves)
        one = np.uint64(1)
        for key in self._keys:
            low = numbers & ((one << right) - one)
            high = (numbers >> right) ^ (_mix(low + key) & ((one << left) - one))
            numbers = low << left | high
            left, right = right, left
        return numbers


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every bit of the input changes about half of those of the output."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
