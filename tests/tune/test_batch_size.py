"""The search for a batch size: against a machine whose memory and speed are known, and with planted errors."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from lstmopt.build import loaded, make
from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError
from lstmopt.models.lstm import LSTM
from lstmopt.tune import batch_size_finder
from lstmopt.tune.batch_size_finder import BatchSizeFinder, _Longest, is_out_of_memory, largest_size, picture
from lstmopt.tune.batch_size_search import Trial, best, doubled, fastest, largest

SMALL = ["data=mackey_glass", "data.length=600", "data.input_length=8", "data.horizon=2", "model.hidden_size=4"]


def composed(*overrides):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", [*SMALL, "loader=resident", *overrides])


def machine(fits, overhead=100.0):
    """A step takes `overhead` + one unit per sequence; sizes above `fits` do not fit."""
    tried = []

    def attempt(size):
        tried.append(size)
        return Trial(size, size / (overhead + size), float(size)) if size <= fits else None

    attempt.tried = tried
    return attempt


@pytest.mark.parametrize("fits", [1, 3, 8, 37, 100, 777, 5000])
def test_the_largest_lies_between_four_fifths_of_the_truth_and_the_truth(fits):
    attempt = machine(fits)
    size, trials = largest(attempt, 10**6)
    assert max(0.8 * fits - 8, 1) <= size <= fits
    assert all(trial.batch_size <= fits for trial in trials)
    assert len(attempt.tried) < 30 and len(set(attempt.tried)) == len(attempt.tried)


@pytest.mark.parametrize("most", [5, 8, 100])
def test_where_all_of_the_data_fit_the_largest_is_all_of_them(most):
    assert largest(machine(10**9), most)[0] == most


def test_nothing_fits():
    for search in (largest, fastest):
        with pytest.raises(ConfigError, match="not even a batch of one"):
            search(machine(0), 1000)


def test_the_fastest_is_where_twice_the_batch_gains_a_tenth_no_more():
    """Doubling b gains 2 (o + b) / (o + 2 b) - 1, which falls below 0.1 beyond b = 4.5 o: of the sizes 8, 16 ... with
    o = 100 the last gain of 10 % is from 256 to 512."""
    trials = fastest(machine(10**9), 10**6)
    assert [trial.batch_size for trial in trials] == [8, 16, 32, 64, 128, 256, 512, 1024]
    assert best(trials).batch_size == 512
    assert best(fastest(machine(200), 10**6)).batch_size == 128
    assert best(fastest(machine(10**9), 40)).batch_size == 32


def test_the_sizes_that_are_tried():
    def sizes(fits, most):
        return list(doubled(lambda size: Trial(size, 1.0, 1.0) if size <= fits else None, most))

    assert sizes(10**9, 100) == [8, 16, 32, 64]
    assert sizes(40, 100) == [8, 16, 32]
    assert sizes(3, 100) == [2] and sizes(10**9, 5) == [5]
    with pytest.raises(ConfigError, match="not even a batch of one"):
        sizes(0, 100)


@pytest.fixture
def small_memory(monkeypatch):
    """An LSTM that needs a GPU's memory for more than 100 sequences."""
    plain = LSTM.forward

    def forward(self, x, *args, **kwargs):
        if len(x) > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(self, x, *args, **kwargs)

    monkeypatch.setattr(LSTM, "forward", forward)


def test_out_of_memory_is_met_and_avoided(small_memory):
    found = BatchSizeFinder(composed(), "largest").find()
    assert 80 <= found.batch_size <= 100
    assert found.failed and min(found.failed) > 100
    assert [trial.batch_size for trial in found.trials] == sorted(trial.batch_size for trial in found.trials)
    assert len(picture(found).axes) == 2


def test_the_fastest_stays_below_what_fits(small_memory):
    found = BatchSizeFinder(composed("data.length=4000"), "fastest").find()
    assert 8 <= found.batch_size <= 100


def test_a_size_that_fits_ordinary_batches_alone_does_not_pass_the_last_look(monkeypatch):
    finder = BatchSizeFinder(composed("data.length=4000"), "fastest")
    plain = finder.attempt

    def attempt(size, longest=False, batches=12):
        return None if longest and size > 20 else Trial(size, float(size), 1.0) if not longest else plain(size, True, 2)

    monkeypatch.setattr(finder, "attempt", attempt)
    assert finder.find().batch_size <= 20


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    def forward(self, *args, **kwargs):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(LSTM, "forward", forward)
    with pytest.raises(RuntimeError, match="multiplied"):
        BatchSizeFinder(composed(), "largest").find()
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
    assert is_out_of_memory(MemoryError())


def test_main_memory_is_never_overdrawn(monkeypatch):
    """Each sequence takes a MB of the 100 that are free: nothing above 80 is tried."""
    finder, tried, peak = BatchSizeFinder(composed(), "largest"), [], [0.0]
    plain = finder._run

    def run(batch_size, clock, batches, longest=False):
        if finder.datamodule is None:
            return plain(batch_size, clock, batches)
        tried.append(batch_size)
        peak[0] = float(batch_size)
        clock.ends, clock.samples = [0.0, 1.0], [batch_size]

    monkeypatch.setattr(finder, "_run", run)
    monkeypatch.setattr(batch_size_finder, "free_memory_mb", lambda: 100.0)
    monkeypatch.setattr(batch_size_finder, "forget_peak_memory", lambda: peak.__setitem__(0, 0.0))
    monkeypatch.setattr(batch_size_finder, "peak_memory_mb", lambda: peak[0])
    found = finder.find()
    assert max(tried) <= 80
    assert 64 <= found.batch_size <= 80 and min(found.failed) > 80


def test_the_longest_sequences_are_what_is_verified():
    from lstmopt.data.splits import Sequences
    from lstmopt.loaders.resident import Resident

    lengths = torch.tensor([3, 16, 5, 16, 2])
    split = Sequences(torch.arange(5.0)[:, None, None].repeat(1, 16, 1), torch.zeros(5), lengths)
    (batch,) = _Longest(Resident()).batches(split, 2, True, 0)
    assert batch.x.shape == (2, 16, 1) and batch.x[:, 0, 0].tolist() == [1.0, 3.0]


def test_the_config_stays_as_it_is():
    cfg = composed()
    before = cfg.copy()
    BatchSizeFinder(cfg, "fastest").find()
    assert cfg == before


@pytest.mark.parametrize("fraction", [0.5, 0.3, 0.1, 0.9, 1 / 3, 1 / 49])
@pytest.mark.parametrize("count", [1, 7, 50, 500])
def test_the_largest_size_with_which_a_fraction_is_a_batch(count, fraction):
    """Against every size, counted as Lightning counts."""
    whole = [size for size in range(1, count + 1) if int(-(-count // size) * fraction) >= 1]
    assert largest_size(count, fraction) == max(whole, default=1)


@pytest.mark.parametrize("mode", ["largest", "fastest"])
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_no_size_leaves_a_fraction_without_a_batch(part, mode):
    """The run that follows asks the same Trainer's limits of the size that was found."""
    cfg = composed("data.length=4000", f"trainer.limit_{part}_batches=0.05", f"tune.batch_size_mode={mode}")
    cfg.data.batch_size = BatchSizeFinder(cfg, mode).find().batch_size
    datamodule = loaded(cfg)
    datamodule.check_limits(make(cfg.trainer))
    if mode == "largest":  # twice the size would be too much
        cfg.data.batch_size = 2 * cfg.data.batch_size + 1
        with pytest.raises(ConfigError, match=f"limit_{part}_batches=0.05 is less than one"):
            loaded(cfg).check_limits(make(cfg.trainer))


@pytest.mark.parametrize("fraction", [None, 0.5])
def test_sequences_of_unequal_lengths(fraction, tmp_path):
    """One batch of the longest of all is tried; half of one would be none."""
    rows = np.random.default_rng(0)
    lengths = rows.integers(4, 17, 120)
    np.savez(tmp_path / "a.npz", x=rows.random((120, 16, 2)), y=np.arange(120) % 2, lengths=lengths)
    words = ["task=classification", "data=npz", f"data.path={tmp_path}/a.npz", "model.hidden_size=4", "loader=resident"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*words, f"trainer.limit_train_batches={fraction or 'null'}"])
    found = BatchSizeFinder(cfg, "largest").find()
    there = -(-len(loaded(cfg).splits["train"]) // found.batch_size)
    assert not found.failed and there == (2 if fraction else 1)
