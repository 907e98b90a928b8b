"""Groups of unequal length in CSV files, and the statistics that inputs are scaled by."""

import json
import warnings

import numpy as np
import pytest
import torch
from test_csv import data

from lstmopt.data.batch import DataSpec
from lstmopt.data.co2 import CO2

VALUES = np.random.default_rng(0).normal(50, 9, (400, 2)).round(3)


def write(path, sizes, level=None):
    rows, begin = [], 0
    for who, size in sizes.items():
        rows += [f"{who},{y + (level or {}).get(who, 0)},{z}" for y, z in VALUES[begin : begin + size].tolist()]
        begin += size
    path.write_text("who,y,z\n" + "\n".join(rows) + "\n")
    return path


def load(path, **options):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        spec, splits = data(path, group_column="who", **options).load()
    return spec, splits, [str(one.message) for one in said]


def test_a_group_too_short_for_a_window_is_named_and_scales_nothing(tmp_path):
    path = write(tmp_path / "g.csv", {"a": 100, "b": 50, "c": 5}, {"c": 1e6})
    spec, splits, said = load(path)
    train = np.concatenate((VALUES[:60], VALUES[100:130]))  # 60 % of a and of b
    assert said == [f"{path}: groups too short for windows of 6 rows: c (5 rows) left out"]
    assert spec.mean == pytest.approx(train.mean(0)[:1]) and spec.std == pytest.approx(train.std(0)[:1])
    alone, same, _ = load(write(tmp_path / "ab.csv", {"a": 100, "b": 50}))
    assert alone == spec
    for part in splits:
        every = torch.arange(len(splits[part]))
        torch.testing.assert_close(splits[part].batch(every).x, same[part].batch(every).x)


def test_groups_without_windows_in_some_part_are_named(tmp_path):
    """Of windows of 6 rows; a part has a fifth of the rows to validate on, and to test on, and needs 2 of them."""
    sizes = {"a": 100, "few": 7, "fewer": 3, "tiny": 2, "one": 1, "nine": 9}
    path = write(tmp_path / "g.csv", sizes, {"few": 1e6, "nine": 1e6})
    spec, splits, said = load(path)
    assert said == [
        f"{path}: groups too short for windows of 6 rows: few (7 rows), fewer (3 rows), tiny (2 rows) and 1 more left "
        "out; nine (9 rows) without a window to train on"
    ]
    assert spec.mean == pytest.approx(VALUES[:60].mean(0)[:1])
    longer = write(tmp_path / "l.csv", {"a": 100, "b": 7}, {"b": 3})
    spec, splits, said = load(longer, val_fraction=0.1, test_fraction=0.1)
    assert said == [f"{longer}: groups too short for windows of 6 rows: b (7 rows) left out"]
    spec, splits, said = load(longer, val_fraction=0.1, test_fraction=0.1, input_length=2, horizon=2)
    assert said == [
        f"{longer}: groups too short for windows of 4 rows: b (7 rows) without a window to validate and test on"
    ]
    train = np.concatenate((VALUES[:80, 0], VALUES[100:105, 0] + 3))
    assert spec.mean == pytest.approx([train.mean()])


def test_a_group_without_complete_rows_is_left_out(tmp_path):
    path = tmp_path / "g.csv"
    rows = [f"{who},{'' if who == 'b' else k},{k % 7}" for who in "ab" for k in range(40)]
    path.write_text("who,y,z\n" + "\n".join(rows))
    _, splits, said = load(path, missing="drop")
    assert said == [f"{path}: groups too short for windows of 6 rows: b (0 rows) left out"]
    assert len(splits["train"].series) == 40


def test_groups_may_lie_among_each_other(tmp_path):
    """Rows in turns give the windows of the same rows group after group."""
    rows = {who: [f"{who},{y},{z}" for y, z in VALUES[at : at + 60].tolist()] for who, at in (("a", 0), ("b", 60))}
    after, turns = tmp_path / "after.csv", tmp_path / "turns.csv"
    after.write_text("\n".join(["who,y,z", *rows["a"], *rows["b"]]))
    turns.write_text("\n".join(["who,y,z", *(row for pair in zip(rows["a"], rows["b"], strict=True) for row in pair)]))
    (spec, splits, _), (other_spec, other, _) = load(after), load(turns)
    assert spec == other_spec
    for part in splits:
        assert torch.equal(splits[part].series, other[part].series) and splits[part].ranges == other[part].ranges


def test_new_rows_can_be_scaled_by_what_the_spec_says(tmp_path):
    path = write(tmp_path / "g.csv", {"a": 100, "b": 50, "c": 5})
    spec, splits, _ = load(path, target="z")
    train = np.concatenate((VALUES[:60], VALUES[100:130]))[:, ::-1]
    assert spec.input_names == ["z", "y"]
    assert spec.input_mean == pytest.approx(train.mean(0)) and spec.input_std == pytest.approx(train.std(0))
    scaled = (VALUES[:4, ::-1] - spec.input_mean) / spec.input_std
    np.testing.assert_allclose(splits["train"].batch(torch.tensor([0])).x[0], scaled, rtol=1e-5)


def test_other_series_say_so_too_and_older_specs_do_not():
    spec, splits = CO2(64, 0, 104, 26).load()
    assert spec.input_names == ["CO2"] and spec.input_mean == spec.mean and spec.input_std == spec.std
    assert DataSpec("forecasting", 1, 1).input_names == []


def test_the_statistics_are_exported(program):
    pytest.importorskip("safetensors")
    rows = "".join(f"{k},{y},{z}\n" for k, (y, z) in enumerate(VALUES.tolist()))
    (program.folder / "a.csv").write_text("t,y,z\n" + rows)
    done = program(
        "data=csv", "data.path=a.csv", "data.target=y", "data.time_column=t", "data.input_length=8",
        "data.horizon=2", "trainer=debug", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = program("run", command="lstmopt.export")
    assert done.returncode == 0, done.stderr
    facts = json.loads((program.folder / "run" / "export" / "model.json").read_text())["data"]
    train = VALUES[: 400 - 2 * 60]
    assert facts["input_names"] == ["y", "z"]
    assert facts["input_mean"] == pytest.approx(train.mean(0)) and facts["input_std"] == pytest.approx(train.std(0))
