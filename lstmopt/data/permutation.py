"""A random order that takes no memory."""

import math

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6  # an even number, so that the halves end where they began
SMALL = 4096  # up to here the order is drawn as a whole


class Permutation:
    """A pseudo-random permutation of 0 ... n - 1, any part of which is computed without the rest.

    Up to 4096 numbers are shuffled by numpy. More are written as pairs (left, right) of about sqrt(n) each, which a
    Feistel network permutes: in every round a number that is mixed from one half is added to the other. The few pairs
    beyond n are walked on from until they are not (cycle walking). Nothing is stored but the keys of the rounds.

    Args:
        n: how many numbers.
        seed: numbers that it is a function of.

    Reference: Black & Rogaway 2002, Ciphers with arbitrary finite domains (the generalised Feistel cipher); mixing as
    in SplitMix64 (Steele, Lea & Flood 2014).
    """

    def __init__(self, n: int, *seed: int) -> None:
        self.n = n
        self._left = math.isqrt(max(n - 1, 0)) + 1
        self._right = -(-n // self._left)
        self._seed = np.random.SeedSequence(seed)
        self._keys = self._seed.generate_state(ROUNDS, np.uint64)

    def __call__(self, start: int, stop: int) -> NDArray[np.int64]:
        """What stands at the positions `start` to `stop`."""
        if self.n <= SMALL:
            return np.random.default_rng(self._seed).permutation(self.n)[start:stop]
        numbers = self._walk(np.arange(start, stop, dtype=np.uint64))
        outside = np.flatnonzero(numbers >= self.n)
        while len(outside):
            numbers[outside] = self._walk(numbers[outside])
            outside = outside[numbers[outside] >= self.n]
        return numbers.view(np.int64)

    def _walk(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Once through the network; the halves change places in every round."""
        size, other = np.uint64(self._left), np.uint64(self._right)
        half, rest = np.divmod(numbers, other)
        for key in self._keys:
            half += _below(size, rest + key)
            np.minimum(half, half - size, out=half)  # below size, the difference wraps around to a large number
            half, rest, size, other = rest, half, other, size
        return half * other + rest


def _below(size: np.uint64, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers below `size` (less than 2^32), mixed from others, which are overwritten."""
    numbers ^= numbers >> np.uint64(30)
    numbers *= np.uint64(0xBF58476D1CE4E5B9)
    numbers ^= numbers >> np.uint64(27)
    numbers *= np.uint64(0x94D049BB133111EB)
    numbers >>= np.uint64(32)
    numbers *= size
    numbers >>= np.uint64(32)
    return numbers
