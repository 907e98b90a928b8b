"""The order that takes no memory: a permutation, and a random one."""

import numpy as np
import pytest

from lstmopt.data.permutation import Permutation


@pytest.mark.parametrize("n", [1, 2, 3, 17, 4096, 4097, 8191, 8192, 8193, 100_003])
def test_every_number_once_in_any_pieces(n):
    whole = Permutation(n, 0, 1)(0, n)
    assert np.array_equal(np.sort(whole), np.arange(n))
    cuts = [0, n // 3, n // 2, n]
    pieces = [Permutation(n, 0, 1)(start, stop) for start, stop in zip(cuts, cuts[1:], strict=False)]
    assert np.array_equal(np.concatenate(pieces), whole)


@pytest.mark.parametrize("small", [0, 4096])
def test_every_number_stands_everywhere_as_often(small, monkeypatch):
    monkeypatch.setattr("lstmopt.data.permutation.SMALL", small)
    n, orders = 60, 3000
    counts = np.zeros((n, n))
    for seed in range(orders):
        counts[np.arange(n), Permutation(n, 11, seed)(0, n)] += 1
    expected = orders / n
    assert ((counts - expected) ** 2 / expected).sum() < 3743  # chi-square, 59 * 59 degrees of freedom, p = 0.001


def test_neighbours_have_nothing_to_do_with_each_other():
    order = Permutation(100_000, 1, 2)(0, 100_000)
    steps = np.bincount((np.diff(order) % 100_000) // 1000, minlength=100)
    assert ((steps - 1000) ** 2 / 1000).sum() < 148.2  # 99 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.012
