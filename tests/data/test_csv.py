"""CSV files as users have them, good and bad."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lstmopt.data.csv_file import CSVFile
from lstmopt.data.table import read
from lstmopt.errors import DataError


def data(path, **options):
    defaults = {
        "batch_size": 4,
        "seed": 0,
        "path": str(path),
        "target": "y",
        "features": None,
        "time_column": None,
        "group_column": None,
        "input_length": 4,
        "horizon": 2,
        "stride": 1,
        "val_fraction": 0.2,
        "test_fraction": 0.2,
        "season": None,
        "missing": "error",
    }
    return CSVFile(**defaults | options)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.csv"
    rows = [f"2024-01-{1 + k // 24:02d} {k % 24:02d}:00:00,{k},{k * k}" for k in range(100)]
    path.write_text("time,y,z\n" + "\n".join(rows) + "\n")
    return path


def test_targets_come_first_then_features(good):
    spec, splits = data(good, time_column="time").load()
    assert (spec.input_size, spec.output_size, spec.season, spec.target_names) == (2, 1, 24, ["y"])
    batch = splits["test"].batch(torch.tensor([0]))
    raw = batch.y[0, :, 0] * spec.std[0] + spec.mean[0]
    assert raw.tolist() == pytest.approx([80, 81], rel=1e-5)


def test_several_targets_and_chosen_features(good):
    spec, _ = data(good, target=["z", "y"], features=[]).load()
    assert spec.target_names == ["z", "y"] and spec.input_size == 2
    spec, _ = data(good, target="z", features=[]).load()
    assert spec.input_size == 1


@pytest.mark.parametrize(
    ("step", "season"),
    [("1h", 24), ("1D", 7), ("7D", 52), ("15m", 96), ("10m", 144), ("1m", 1440), ("12h", 2)],
    ids=lambda value: str(value),
)
def test_season_is_guessed_from_the_times(step, season, tmp_path):
    unit = {"h": "h", "D": "D", "m": "m"}[step[-1]]
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(80) * np.timedelta64(int(step[:-1]), unit)
    path = tmp_path / "t.csv"
    path.write_text("time,y\n" + "\n".join(f"{t},{k}" for k, t in enumerate(times)))
    assert data(path, time_column="time").load()[0].season == season


def test_months_have_a_season_of_twelve(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("t,y\n" + "\n".join(f"{2000 + k // 12}-{k % 12 + 1:02d}-01,{k}" for k in range(80)))
    assert data(path, time_column="t").load()[0].season == 12


def test_groups_are_series_of_their_own(tmp_path):
    path = tmp_path / "g.csv"
    path.write_text("who,t,y\n" + "\n".join(f"{'ab'[k % 2]},{k // 2},{k % 2 * 100 + k // 2}" for k in range(100)))
    spec, splits = data(path, group_column="who", time_column="t").load()
    for part in splits.values():
        batch = part.batch(torch.arange(len(part)))
        raw = torch.cat((batch.x, batch.y), dim=1)[..., 0] * spec.std[0] + spec.mean[0]
        assert torch.allclose(raw.diff(dim=1), torch.ones(()), atol=1e-3)


@pytest.mark.parametrize(
    ("missing", "expected"), [("ffill", [4.0, 4.0]), ("interpolate", [5.0, 6.0]), ("drop", [7.0, 8.0])]
)
def test_missing_values_by_policy(missing, expected, tmp_path):
    path = tmp_path / "m.csv"
    cells = [str(k) for k in range(60)]
    cells[5] = cells[6] = ""
    path.write_text("y,z\n" + "\n".join(f"{c},1" for c in cells))
    with pytest.warns(UserWarning, match="z is constant"):
        spec, splits = data(path, missing=missing).load()
    raw = splits["train"].series[5:7, 0] * spec.std[0] + spec.mean[0]
    assert raw.tolist() == pytest.approx(expected, abs=1e-4)


def gaps(count=60, leading=0, gap=range(0), more=""):
    cells = ["" if k < leading or k in gap else str(k) for k in range(count)]
    return "y,z\n" + "".join(f"{cell},{(k * 7) % 5}{more}\n" for k, cell in enumerate(cells))


def raw(part, spec):
    """The first target in every window, past and future."""
    batch = part.batch(torch.arange(len(part)))
    return (torch.cat((batch.x[..., 0], batch.y[..., 0]), dim=1) * spec.std[0] + spec.mean[0]).numpy()


def test_ffill_never_looks_ahead(tmp_path):
    """What stands in a window does not depend on any row after it."""
    path, target = tmp_path / "m.csv", {"target": ["y", "z"], "missing": "ffill", "stride": 3}
    path.write_text(gaps(leading=3, gap=[9, 10, 20]))
    with pytest.warns(UserWarning, match="the first 3 rows are left out, as y has no value in them"):
        spec, splits = data(path, **target).load()
    first = raw(splits["train"], spec)[0]
    assert first == pytest.approx([3, 4, 5, 6, 7, 8], abs=1e-4)
    series = splits["train"].series[:, 0] * spec.std[0] + spec.mean[0]
    newest, expected = None, []
    for k in range(3, 60):  # a loop by hand that only knows what was
        newest = newest if k in (9, 10, 20) else k
        expected.append(newest)
    assert series.tolist() == pytest.approx(expected, abs=1e-4)


def test_ffill_names_the_column_that_begins_last_in_each_group(tmp_path):
    path = tmp_path / "g.csv"
    rows = [f"{who},{k},{'' if who == 'b' and k < 4 else k % 3}" for who in "ab" for k in range(40)]
    path.write_text("who,y,z\n" + "\n".join(rows))
    with pytest.warns(UserWarning) as said:
        _, splits = data(path, missing="ffill", group_column="who").load()
    assert [str(one.message) for one in said] == [
        f"{path}: the first 4 rows of b are left out, as z has no value in them"
    ]
    assert len(splits["train"].series) == 76


@pytest.mark.parametrize("missing", ["ffill", "interpolate"])
def test_filled_targets_are_neither_validated_nor_tested_on(missing, tmp_path):
    path, gone = tmp_path / "m.csv", {37, 41, 50, 51, 57}
    path.write_text(gaps(gap=gone))
    spec, splits = data(path, missing=missing).load()
    path.write_text(gaps())
    full_spec, full = data(path).load()
    for part, first, end in (("val", 36, 48), ("test", 48, 60)):
        starts = [k for k in range(first, end - 1) if not gone & {k, k + 1}]  # by hand: two targets per window
        found = raw(splits[part], spec)
        assert found[:, 4].round().tolist() == starts and len(starts) < end - first - 1
        measured = {round(float(row[4])): row[4:] for row in raw(full[part], full_spec)}
        for row in found:
            assert row[4:] == pytest.approx(measured[round(float(row[4]))], abs=1e-3)
    assert len(splits["train"]) == len(full["train"])


def test_a_test_part_of_filled_targets_alone_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(gaps(gap=range(49, 60, 2)))
    with pytest.raises(DataError, match="every window of its test part would be scored on targets that were filled"):
        data(path, missing="interpolate").load()
    _, splits = data(path, missing="interpolate", horizon=1).load()
    assert len(splits["test"]) == 6


def test_the_season_is_that_of_most_rows(tmp_path):
    path = tmp_path / "g.csv"
    day, rows = np.datetime64("2024-01-01T00:00:00"), []
    for who, hours, count in (("a", 1, 90), ("b", 24, 40), ("c", 1, 1)):
        rows += [f"{who},{day + np.timedelta64(hours * k, 'h')},{k}" for k in range(count)]
    path.write_text("who,t,y\n" + "\n".join(rows))
    spec, _ = data(path, group_column="who", time_column="t").load()
    assert spec.season == 24


@pytest.mark.parametrize("place", [0, 3, 39])
def test_a_numeric_time_that_is_missing_is_refused(place, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("t,y\n" + "\n".join(f"{'' if k == place else k},{k}" for k in range(40)))
    with pytest.raises(DataError, match=f"t holds no time in line {place + 2}"):
        data(path, time_column="t").load()


def lines(count=40, change=None, header="y,z"):
    rows = [f"{k},{k % 7}" for k in range(count)]
    for row, text in (change or {}).items():
        rows[row] = text
    return "\n".join([header, *rows]) + "\n"


BAD = {
    "empty": ("", {}, "is empty"),
    "header_only": ("y,z\n", {}, "no rows"),
    "no_header": ("1,2\n3,4\n", {}, "no names of columns"),
    "semicolons": (lines().replace(",", ";"), {}, "commas"),
    "decimal_comma": (lines(change={3: '"1,5",2'}), {}, "'1,5' in line 5"),
    "text": (lines(change={3: "x,2"}), {}, "column y holds the text 'x' in line 5"),
    "missing_cell": (lines(change={3: ",2", 9: ",2"}), {}, "column y has no number in lines 5, 11"),
    "nan": (lines(change={3: "nan,2"}), {}, "no number in line 5"),
    "infinite": (lines(change={3: "inf,2"}), {}, "inf in line 5"),
    "too_large": (lines(change={3: "1e39,2"}), {}, "1e39 in line 5"),
    "short_row": (lines(change={3: "1"}), {}, "line 5 has 1 fields"),
    "long_row": (lines(change={3: "1,2,3"}), {}, "line 5 has 3 fields"),
    "all_rows_longer": ("y,z\n" + "1,2,3\n" * 30, {}, "line 2 has 3 fields"),
    "twice": (lines(header="y,y"), {}, "more than one column y"),
    "nameless": (lines(header="y,"), {}, "column 2 has no name"),
    "no_target": (lines(), {"target": "x"}, "no column x"),
    "no_feature": (lines(), {"features": ["zz"]}, "no column zz"),
    "no_time": (lines(), {"time_column": "date"}, "no column date"),
    "target_is_time": (lines(), {"time_column": "y"}, "cannot be the time"),
    "unsorted": (lines(change={3: "99,2"}), {"time_column": "y", "target": "z"}, "does not grow in line 6"),
    "no_date": ("y,z\n2024-01-01,1\nsoon,2\n", {"time_column": "y", "target": "z"}, "'soon' in line 3"),
    "too_short": (lines(8), {}, "too short"),
    "no_train": (lines(), {"val_fraction": 0.5, "test_fraction": 0.5}, "no rows are left"),
    "unclosed_quote": (lines(change={3: '"1,2'}), {}, "not a CSV file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_line(name, tmp_path):
    text, options, expected = BAD[name]
    path = tmp_path / f"{name}.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        data(path, **options).load()
    assert expected in caught.value.problem
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"\x00\xff\xfe\x9c" * 50, "y,z\n1,2\n".encode("utf-16")])
def test_binary_files_are_refused(content, tmp_path):
    (tmp_path / "b.csv").write_bytes(content)
    with pytest.raises(DataError):
        data(tmp_path / "b.csv").load()


def test_of_the_ways_to_fill_that_without_the_future_is_named_first(tmp_path):
    (tmp_path / "m.csv").write_text(gaps(gap=[3]))
    with pytest.raises(DataError) as caught:
        data(tmp_path / "m.csv").load()
    assert caught.value.hint.startswith("type data.missing=ffill")


def test_missing_file_and_folder(tmp_path):
    for path, expected in ((tmp_path / "no.csv", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=expected):
            data(path).load()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_endings_and_byte_order_marks_do_not_matter(ending, mark, tmp_path):
    path = Path(tmp_path / "e.csv")
    path.write_bytes(mark + lines().replace("\n", ending).encode())
    table = read(str(path))
    assert table.names == ["y", "z"]
    assert table.column("y", "data.target")[:3] == ["0", "1", "2"]


def test_the_nearest_column_is_named(good):
    with pytest.raises(DataError) as caught:
        data(good, target="Y", time_column="time").load()
    assert "data.target=" in caught.value.hint
