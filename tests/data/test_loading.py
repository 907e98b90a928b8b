"""The common loader: order, resume, windows."""

import socket
from multiprocessing import resource_sharer

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lstmopt.data.batch_indices import BatchIndices
from lstmopt.data.batch_loader import BatchLoader
from lstmopt.data.series import time_split, windows
from lstmopt.data.splits import Sequences, Windows
from lstmopt.errors import DataError

SERIES = np.random.default_rng(0).normal(5, 3, (60, 3))


def build(input_length=6, horizon=3, stride=1, ends=None):
    ends = ends or [time_split(0, 60, 0.2, 0.2)]
    return windows(SERIES, ["a", "b", "c"], ["c", "a"], ends, input_length, horizon, season=1, stride=stride)


def starts(part):
    return part.starts(torch.arange(len(part))).tolist()


def test_windows_equal_slices_of_the_standardised_series():
    spec, splits = build()
    train = SERIES[:36]
    scaled = (SERIES - train.mean(0)) / train.std(0)
    assert spec.mean == pytest.approx(train.mean(0)[[2, 0]])
    assert spec.std == pytest.approx(train.std(0)[[2, 0]])
    for part, targets in (("train", range(6, 34)), ("val", range(36, 46)), ("test", range(48, 58))):
        assert len(splits[part]) == len(targets)
        batch = splits[part].batch(torch.arange(len(splits[part])))
        for row, first in enumerate(targets):
            np.testing.assert_allclose(batch.x[row], scaled[first - 6 : first], rtol=1e-5)
            np.testing.assert_allclose(batch.y[row], scaled[first : first + 3][:, [2, 0]], rtol=1e-5)


def test_windows_are_views_of_one_series():
    _, splits = build()
    assert len({splits[part].series.data_ptr() for part in splits}) == 1


def test_stride_thins_out_training_windows_alone():
    _, whole = build()
    _, thin = build(stride=4)
    assert starts(thin["train"]) == starts(whole["train"])[::4]
    assert len(thin["val"]) == len(whole["val"])


def test_windows_do_not_cross_groups():
    ends = [time_split(0, 25, 0.2, 0.2), time_split(25, 60, 0.2, 0.2)]
    _, splits = build(ends=ends)
    for part in splits:
        for start in starts(splits[part]):
            assert start + 9 <= 25 or start >= 25


def test_a_short_series_says_what_is_needed():
    with pytest.raises(DataError, match="36 rows and a window needs 43"):
        build(input_length=40)


def test_order_is_a_function_of_seed_and_epoch():
    def epoch(seed, number):
        indices = BatchIndices(10, 4, True, seed)
        indices.set_epoch(number)
        torch.rand(3)  # the global state must not matter
        return torch.cat(list(indices)).tolist()

    assert epoch(1, 0) == epoch(1, 0)
    assert sorted(epoch(1, 3)) == list(range(10))
    assert len({tuple(epoch(seed, number)) for seed in range(2) for number in range(3)}) == 6


def test_a_loader_goes_on_in_the_middle_of_an_epoch():
    part = Sequences(torch.arange(10.0)[:, None, None], torch.arange(10))
    whole = [b.y.tolist() for b in BatchLoader(part, 3, True, 7)]
    loader = BatchLoader(part, 3, True, 7)
    iterator = iter(loader)
    next(iterator), next(iterator)
    assert loader.state_dict() == {"batches": 2}
    resumed = BatchLoader(part, 3, True, 7)
    resumed.load_state_dict({"batches": 2})
    assert [b.y.tolist() for b in resumed] == whole[2:]
    assert [b.y.tolist() for b in resumed] == whole  # the skip counts once
    resumed.load_state_dict({"batches": len(whole)})
    assert [b.y.tolist() for b in resumed] == whole


def test_loading_leaves_the_global_random_state_alone():
    part = Sequences(torch.zeros(10, 1, 1), torch.arange(10))
    state = torch.get_rng_state()
    list(BatchLoader(part, 3, True, 7))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_differ_and_are_the_same_from_every_loader(workers, tmp_path):
    class Watch(pl.LightningModule):
        def training_step(self, batch, batch_idx):
            seen.append((self.current_epoch, batch.y.tolist()))

        def configure_optimizers(self):
            return None

    seen = []
    part = Sequences(torch.arange(10.0)[:, None, None], torch.arange(10))
    loader = BatchLoader(part, 4, True, 7, num_workers=workers, persistent_workers=workers > 0)
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(Watch(), loader)
    epochs = [sum((labels for at, labels in seen if at == epoch), []) for epoch in range(3)]
    assert all(sorted(labels) == list(range(10)) for labels in epochs) and len(set(map(tuple, epochs))) == 3
    by_hand = BatchIndices(10, 4, True, 7)
    for epoch, labels in enumerate(epochs):
        by_hand.set_epoch(epoch)
        assert torch.cat(list(by_hand)).tolist() == labels


def test_a_worker_says_nothing_when_the_training_process_leaves_while_it_takes_a_batch(monkeypatch, capfd):
    plain, left = resource_sharer._ResourceSharer.get_connection, []

    def leave_and_come_again(ident):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(ident[0])
        left.append(ident)
        return plain(ident)

    monkeypatch.setattr(resource_sharer._ResourceSharer, "get_connection", staticmethod(leave_and_come_again))
    batches = list(BatchLoader(Sequences(torch.randn(6, 5, 2), torch.zeros(6)), 2, False, 0, num_workers=1))
    assert len(batches) == 3 and len(left) >= 3
    assert capfd.readouterr().err == ""


def test_a_batch_is_cut_to_its_longest_sequence():
    part = Sequences(torch.zeros(3, 9, 2), torch.zeros(3, 9).long(), torch.tensor([4, 9, 2]), per_step=True)
    batch = part.batch(torch.tensor([0, 2]))
    assert batch.x.shape == (2, 4, 2) and batch.y.shape == (2, 4)


def test_all_columns_as_targets_is_the_same_without_a_copy():
    series = torch.randn(20, 2)
    every = Windows(series, [range(5)], 4, 2, [0, 1]).batch(torch.tensor([1, 3]))
    swapped = Windows(series, [range(5)], 4, 2, [1, 0]).batch(torch.tensor([1, 3]))
    assert torch.equal(every.y, swapped.y.flip(2))
