"""Which settings make another cache, and what a cache says again."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lstmopt.data.batch import DataSpec
from lstmopt.data.csv_file import CSVFile
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences
from lstmopt.errors import ConfigError
from lstmopt.loaders.cached import Cached, key


class Own(DataModule):
    """Somebody's data, that are what `cols` says."""

    def __init__(self, cols, batch_size=4):
        super().__init__(batch_size, 0)
        self._cols = cols

    def files(self):
        return []

    def load(self):
        numbers = torch.tensor([len(repr(self._cols)), hash(repr(self._cols)) % 9973]).float()
        part = Sequences(numbers.repeat(6, 3, 1), torch.zeros(6, dtype=torch.int64))
        return DataSpec("classification", 2, 1), {"train": part, "val": part, "test": part}


DIFFERENT = [
    None,
    1,
    1.5,
    True,
    "1",
    {"a": 1},
    {"a": 2},
    {"a": 1, "b": 1},
    {"b": 1, "a": 1},
    {1: 1},
    {"1": 1},
    {"a": {"b": [1]}},
    {"a": {"b": [2]}},
    {"a": {"b": (2,)}},
    [1, 2],
    (1, 2),
    (1, 3),
    [[1], 2],
    ["dict", []],
    {},
    [],
    (),
    Path("a"),
    Path("b"),
    ["path", "a"],
    float("nan"),
]


def test_other_settings_are_other_caches_and_the_same_the_same(tmp_path):
    keys = {key(Own(cols)) for cols in DIFFERENT}
    assert len(keys) == len(DIFFERENT)
    assert keys == {key(Own(cols, batch_size=7)) for cols in DIFFERENT}
    loader = Cached(str(tmp_path))
    for _ in range(2):
        for cols in DIFFERENT:
            expected, given = Own(cols).load()[1], loader.load(Own(cols))[1]
            assert torch.equal(given["train"].x, expected["train"].x)
    assert len(list(tmp_path.iterdir())) == len(DIFFERENT)


def test_a_cache_that_was_used_is_the_same(tmp_path):
    made = Own({"a": 1})
    before, made.loader = key(made), Cached(str(tmp_path))
    made.setup()
    made.cut = print
    assert key(made) == before


@pytest.mark.parametrize(
    "cols",
    [object(), print, np.arange(3), torch.arange(3), {1, 2}, {"a": [np.int64]}],
    ids=lambda value: type(value).__name__,
)
def test_settings_that_are_not_plain_are_refused(cols, tmp_path):
    with pytest.raises(ConfigError) as caught:
        Cached(str(tmp_path)).load(Own(cols))
    assert "Own._cols" in caught.value.problem and "loader=resident" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_what_is_said_about_the_data_is_said_each_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,price\n" + "".join(f"{k},{k % 7 if k > 3 else ''},5\n" for k in range(400)))

    def said(loader):
        made = CSVFile(4, 0, str(path), "a", None, None, None, 8, 2, 1, 0.2, 0.2, None, "ffill")
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            if loader is None:
                made.load()
            else:
                loader.load(made)
        return [str(one.message) for one in found if one.category is UserWarning]

    expected, loader = said(None), Cached(str(tmp_path / "cache"))
    assert len(expected) == 2 and any("column price is constant" in one for one in expected)
    assert [said(loader) for _ in range(3)] == [expected] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_what_is_said_before_an_error_is_said(tmp_path):
    class Breaks(Own):
        def load(self):
            warnings.warn("careful", stacklevel=2)
            raise ValueError("broken")

    with pytest.warns(UserWarning, match="careful"), pytest.raises(ValueError, match="broken"):
        Cached(str(tmp_path)).load(Breaks(1))
