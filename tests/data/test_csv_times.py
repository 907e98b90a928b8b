"""Times of CSV files: dates of every kind in long files, seasons, and gaps."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from multiprocessing import get_context

import pytest
import torch
from test_csv import data

from lstmopt.data.times import one_by_one
from lstmopt.errors import DataError

START = datetime(2024, 1, 1)
HOURS = [START + timedelta(hours=k) for k in range(3000)]


def write(path, times, values=None):
    values = range(len(times)) if values is None else values
    path.write_text("t,y\n" + "".join(f"{time},{value}\n" for time, value in zip(times, values, strict=True)))
    return path


def load(path, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec, splits = data(path, time_column="t", **options).load()
    return spec.season, {part: len(split) for part, split in splits.items()}


def in_a_child(path, **options):
    """What `load` gives, in a process whose crash does not end this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
        return pool.submit(load, path, options).result()


BAD_DATES = {
    "with slashes": lambda k, time: f"{time:%d/%m/%Y %H:%M}",
    "with points": lambda k, time: f"{time:%d.%m.%Y}",
    "one late hour of one digit": lambda k, time: "2024-02-07 1:00" if k == 900 else str(time),
    "one late word": lambda k, time: "9 o'clock" if k == 900 else str(time),
}


@pytest.mark.parametrize("count", [500, 501, 1200])
@pytest.mark.parametrize("name", BAD_DATES)
def test_dates_that_cannot_be_read_are_refused_in_files_of_any_length(name, count, tmp_path):
    cells = [BAD_DATES[name](k, time) for k, time in enumerate(HOURS[:count])]
    path = write(tmp_path / "t.csv", cells)
    row = next((k for k, cell in enumerate(cells) if not cell.startswith("2024-0") or " 1:" in cell), None)
    if row is None:
        in_a_child(path)
        return
    with pytest.raises(DataError) as caught:
        in_a_child(path)
    assert caught.value.problem.endswith(f"t holds {cells[row]!r} in line {row + 2}, which is no ISO date")


@pytest.mark.parametrize("zone", ["Z", "+01:00", "-0530", "+00:00"])
def test_dates_with_a_time_zone_are_read(zone, tmp_path):
    plain = in_a_child(write(tmp_path / "plain.csv", HOURS[:900]))
    assert in_a_child(write(tmp_path / "t.csv", [f"{time}{zone}" for time in HOURS[:900]])) == plain
    assert plain[0] == 24


def test_an_hour_that_comes_twice_grows_with_its_zone(tmp_path):
    """The clock goes back, the time goes on."""
    clock = [f"{time}+02:00" for time in HOURS[:700]] + [f"{time}+01:00" for time in HOURS[699:1300]]
    assert in_a_child(write(tmp_path / "t.csv", clock))[0] == 24
    path = write(tmp_path / "no_zone.csv", [cell[:19] for cell in clock])
    with pytest.raises(DataError, match="does not grow in line 702"):
        in_a_child(path)


def test_seconds_of_dates():
    cells = ["2024-01-31", "2024-01-31 13:00:30", "2024-01-31T13:00:30+01:30", "2024-01-31T13:00:30.25Z", "no"]
    noon = 1706659200.0  # date -u -d 2024-01-31 +%s
    expected = [noon, noon + 13 * 3600 + 30, noon + 11.5 * 3600 + 30, noon + 13 * 3600 + 30.25, 0.0]
    found, wrong = one_by_one(cells)
    assert found.tolist() == expected and wrong == 4


def hourly(keep, count=3000):
    return [time for time in (START + timedelta(hours=k) for k in range(count)) if keep(time)]


def daily(keep, count=800):
    return [time.date() for time in (START + timedelta(days=k) for k in range(count)) if keep(time)]


def minutes(count=40):
    times = (START + timedelta(minutes=k) for k in range(count * 1440))
    return [time for time in times if 570 <= time.hour * 60 + time.minute < 960 and time.weekday() < 5]


SEASONS = {  # by counting rows on fingers
    "working days": (daily(lambda t: t.weekday() < 5), 5),
    "working days but some holidays": (daily(lambda t: t.weekday() < 5 and (t.month, t.day) != (5, 1)), 5),
    "no Sundays": (daily(lambda t: t.weekday() < 6), 6),
    "8 to 20 h": (hourly(lambda t: 8 <= t.hour <= 20), 13),
    "8 to 20 h of working days": (hourly(lambda t: 8 <= t.hour <= 20 and t.weekday() < 5), 13),
    "minutes of trading": (minutes(), 390),
    "every hour": (HOURS, 24),
    "two days of hours": (HOURS[:48], 24),
    "months": ([f"{2000 + k // 12}-{k % 12 + 1:02d}-01" for k in range(120)], 12),
    "numbers that may be minutes": (range(0, 60 * 900, 60), 1),
    "seconds since 1970": (range(1_700_000_000, 1_700_000_000 + 3600 * 900, 3600), 24),
}


@pytest.mark.parametrize("name", SEASONS)
def test_a_season_has_as_many_rows_as_a_day_or_week_holds_and_none_is_a_gap(name, tmp_path):
    times, season = SEASONS[name]
    assert load(write(tmp_path / "t.csv", times), {})[0] == season


def with_gaps(path, count, *gaps, **options):
    """Hours of which some are missing; the target is the number of the hour."""
    kept = [k for k in range(count) if not any(k in gap for gap in gaps)]
    write(path, [HOURS[k] for k in kept], kept)
    with pytest.warns(UserWarning) as said:
        spec, splits = data(path, time_column="t", **options).load()
    series = splits["train"].series[:, 0].double() * spec.std[0] + spec.mean[0]
    found = {
        part: [series[s : s + 6].round().int().tolist() for s in split.starts(torch.arange(len(split))).tolist()]
        for part, split in splits.items()
    }
    return kept, found, [str(one.message) for one in said]


def whole(hours):
    return hours[-1] - hours[0] == len(hours) - 1


def test_windows_over_a_gap_are_trained_on_and_never_scored(tmp_path):
    path = tmp_path / "t.csv"
    kept, found, said = with_gaps(path, 1200, range(500, 700), range(950, 960), range(1100, 1102))
    every = [kept[s : s + 6] for s in range(len(kept) - 5)]  # by hand
    count = len(kept)
    parts = {"train": (0, count * 6 // 10), "val": (count * 6 // 10 - 4, count * 8 // 10)}
    parts["test"] = (count * 8 // 10 - 4, count)
    for part, (low, high) in parts.items():
        windows = [window for window in every[low : high - 5] if part == "train" or whole(window)]
        assert found[part] == windows
    spanning = sum(not whole(window) for window in every)
    assert said == [
        f"{path}: time steps are not equal: line 502 comes 201 h after the line before, typically 1 h (and 2 more "
        f"gaps); {spanning} windows span gaps, of which none validates or tests"
    ]


def test_single_hours_that_are_missing_are_gaps(tmp_path):
    gone = [range(k, k + 1) for k in (110, 523, 760, 931)]
    _, found, said = with_gaps(tmp_path / "t.csv", 1000, *gone)
    assert "line 112 comes 2 h after the line before, typically 1 h (and 3 more gaps)" in said[0]
    assert all(map(whole, found["val"] + found["test"])) and not all(map(whole, found["train"]))


def test_rows_that_are_dropped_leave_the_gap_beside_them(tmp_path):
    """The first row after a gap has no number, and the one after it inherits the gap."""
    path, kept = tmp_path / "t.csv", [k for k in range(600) if k not in range(500, 550)]
    write(path, [HOURS[k] for k in kept], ["" if k in (450, 550) else k for k in kept])
    with pytest.warns(UserWarning, match="comes 51 h after"):
        spec, splits = data(path, time_column="t", missing="drop").load()
    test = splits["test"]
    batch = test.batch(torch.arange(len(test)))
    hours = (torch.cat((batch.x, batch.y), dim=1)[..., 0] * spec.std[0] + spec.mean[0]).round()
    assert not ((hours[:, 0] < 500) & (hours[:, -1] > 500)).any() and (hours[:, 0] > 550).any()


def test_gaps_are_those_within_a_group(tmp_path):
    path = tmp_path / "g.csv"
    rows = [f"{who},{HOURS[k]},{k}" for who in "ab" for k in range(400) if (who, k // 10) != ("b", 37)]
    path.write_text("who,t,y\n" + "\n".join(rows) + "\n")
    with pytest.warns(UserWarning) as said:
        _, splits = data(path, time_column="t", group_column="who").load()
    assert len(said) == 1 and "line 772 comes 11 h after the line before, typically 1 h; 5 windows" in str(
        said[0].message
    )
    assert len(splits["test"]) == 79 + 77 - 5


def test_gaps_between_numbers(tmp_path):
    path = write(tmp_path / "t.csv", [k for k in range(500) if not 300 <= k < 320])
    with pytest.warns(UserWarning, match="line 302 comes 21 after the line before, typically 1; 5 windows"):
        data(path, time_column="t").load()


def test_a_part_whose_windows_all_span_gaps_is_refused(tmp_path):
    path = write(tmp_path / "t.csv", [*range(1000), *(1000 + 50 * k + k * k for k in range(1, 9))])
    with pytest.raises(DataError, match="its test part that could be scored spans a gap in time"):
        data(path, val_fraction=0.3, test_fraction=0.005, time_column="t").load()
