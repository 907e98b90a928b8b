"""Batches of similar length: every sample once, repeatable, resumable, in few shapes."""

import numpy as np
import pytest
import torch

from lstmopt.data.batch_indices import BatchIndices
from lstmopt.data.batch_loader import BatchLoader
from lstmopt.data.length_buckets import POOL, LengthBuckets
from lstmopt.data.splits import Sequences

N = 1000
LENGTHS = torch.from_numpy(np.random.default_rng(0).integers(1, 201, N))


def part(lengths=LENGTHS, longest=200):
    x = torch.arange(len(lengths)).float()[:, None, None].expand(-1, longest, 2).contiguous()
    y = torch.arange(len(lengths))[:, None].expand(-1, longest).contiguous()
    return Sequences(x, y, lengths, per_step=True)


def epoch(buckets, number):
    buckets.set_epoch(number)
    torch.rand(3)  # the global state must not matter
    return list(buckets)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 2000])
@pytest.mark.parametrize("number", [0, 5])
def test_every_sample_is_read_once_an_epoch(batch_size, number):
    buckets = LengthBuckets(LENGTHS, batch_size, 3)
    batches = epoch(buckets, number)
    assert len(batches) == len(buckets) == -(-N // batch_size)
    assert sorted(torch.cat(batches).tolist()) == list(range(N))
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_order_is_a_function_of_seed_and_epoch():
    def read(seed, number):
        return [batch.tolist() for batch in epoch(LengthBuckets(LENGTHS, 16, seed), number)]

    assert read(1, 2) == read(1, 2)
    orders = [read(seed, number) for seed in range(2) for number in range(3)]
    assert len({str(order) for order in orders}) == 6
    sets = [{frozenset(batch) for batch in order} for order in orders]
    assert not sets[0] & sets[1], "the batches themselves are new, not only their order"


def test_lengths_in_a_batch_are_alike():
    """Within a pool batches are stretches of its sorted lengths."""
    small = LengthBuckets(LENGTHS, 4, 0)
    for first in range(0, 5):
        batches = [LENGTHS[batch] for batch in epoch(small, first)]
        spread = np.mean([int(lengths.max() - lengths.min()) for lengths in batches])
        assert spread < 2 * 200 / POOL
    means = torch.stack([lengths.float().mean() for lengths in batches[:POOL]])
    place = torch.arange(len(means)).float()
    assert abs(float(torch.corrcoef(torch.stack((means, place)))[0, 1])) < 0.3, "long batches are not all at an end"


def test_only_unequal_lengths_in_training_are_sorted():
    assert type(part().indices(8, True, 0)) is LengthBuckets
    plain = Sequences(torch.zeros(9, 4, 1), torch.zeros(9))
    for other, shuffle in ((part(), False), (plain, True), (part(LENGTHS * 0 + 7), True)):
        indices = other.indices(8, shuffle, 5)
        assert type(indices) is BatchIndices
        assert [b.tolist() for b in indices] == [b.tolist() for b in BatchIndices(len(other), 8, shuffle, 5)]


@pytest.mark.parametrize("done", [0, 2, POOL - 1, POOL, POOL + 3, 124])
def test_a_loader_goes_on_in_the_middle_of_an_epoch(done):
    whole = [b.y[:, 0].tolist() for b in BatchLoader(part(), 8, True, 7)]
    assert len(whole) == 125
    resumed = BatchLoader(part(), 8, True, 7)
    resumed.load_state_dict({"batches": done})
    assert [b.y[:, 0].tolist() for b in resumed] == whole[done:]
    assert [b.y[:, 0].tolist() for b in resumed] == whole, "the skip counts once"


@pytest.mark.parametrize("longest", [1, 5, 16, 17, 100, 200])
def test_batches_have_few_distinct_numbers_of_steps(longest):
    lengths = torch.randint(1, longest + 1, (N,), generator=torch.Generator().manual_seed(0))
    data, found = part(lengths, longest), set()
    for shuffle in (True, False):
        for number in range(3):
            loader = BatchLoader(data, 8, shuffle, 0)
            loader.indices.set_epoch(number)
            for batch in loader:
                steps = batch.x.shape[1]
                assert batch.y.shape[1] == steps
                assert int(batch.lengths.max()) <= steps < int(batch.lengths.max()) + max(longest / 16, 1) + 1
                assert torch.equal(batch.lengths, lengths[batch.y[:, 0]])
                found.add(steps)
    assert len(found) <= 16 and max(found) <= longest
