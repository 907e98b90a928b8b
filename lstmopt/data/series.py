"""From a series in raw units to standardised windows, split by time."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.splits import Windows
from lstmopt.errors import DataError

PARTS = ("train", "val", "test")
USES = {"train": "train", "val": "validate", "test": "test"}


def standardise(
    rows: NDArray[np.float64], train: NDArray[np.bool_], names: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Zero mean and unit variance on the training rows.

    Returns:
        The standardised rows `[N, F]` as float32, and mean and std `[F]`; a constant column keeps a std of 1, and is
        said.
    """
    first, last = int(train.argmax()), len(train) - int(train[::-1].argmax())
    part = rows[first:last] if train[first:last].all() else rows[train]
    mean, std = part.mean(axis=0), part.std(axis=0)
    del part
    for column in np.flatnonzero(std < 1e-12):
        warnings.warn(f"column {names[column]} is constant over the training rows", stacklevel=2)
        std[column] = 1.0
    scaled = np.empty(rows.shape, np.float32)
    for k in range(rows.shape[1]):  # one by one, as a whole series is large
        scaled[:, k] = (rows[:, k] - mean[k]) / std[k]
    return scaled, mean, std


def windows(
    rows: NDArray[np.float64],
    names: list[str],
    targets: list[str],
    ends: list[list[int]],
    input_length: int,
    horizon: int,
    season: int,
    stride: int = 1,
    unit: str = "",
    source: str | None = None,
    groups: list[str] | None = None,
    filled: NDArray[np.bool_] | None = None,
    gaps: NDArray[np.bool_] | None = None,
) -> tuple[DataSpec, dict[str, Split]]:
    """Windows over the three parts of one or more groups of rows.

    A window belongs to the part that holds all its targets; its input may begin in the part before. The scaler is
    fitted on the training rows alone, of all groups that have a training window. Groups too short for windows are said.

    Args:
        rows: `[N, F]` in raw units, group after group, in order of time.
        names: the F columns.
        targets: the columns to predict.
        ends: for each group its first row and the end rows of train, val and test.
        season: steps per season, for the baseline.
        stride: rows between the starts of two training windows; val and test use every row.
        source: the file, where its parts can be chosen by `val_fraction` and `test_fraction`.
        groups: their names, where there are several.
        filled: `[N]`, rows with a target that was not measured; windows that would predict one neither validate nor
            test.
        gaps: `[N]`, rows that do not follow the row before; windows over one neither validate nor test.

    Raises:
        DataError: a part is too short for one window, or none is left that predicts what was measured, without a gap.
    """
    length, name = input_length + horizon, source or "the series"
    ranges = _ranges(ends, input_length, horizon, stride, name, source is not None)
    if groups:
        _say_left_out(name, groups, ends, ranges, length)
    train = np.zeros(len(rows), dtype=bool)
    for group, starts in zip(ends, ranges["train"], strict=True):
        train[group[0] : group[1]] = len(starts) > 0
    scaled, mean, std = standardise(rows, train, names)
    series = torch.from_numpy(scaled)
    index = [names.index(target) for target in targets]
    for part in PARTS[1:]:
        if filled is not None and filled.any():
            ranges[part] = [kept for starts in ranges[part] for kept in clear(starts, filled, input_length, length)]
            if not ranges[part]:
                raise DataError(
                    f"{name}: every window of its {part} part would be scored on targets that were filled",
                    "type a smaller data.horizon, or data.missing=drop",
                )
        if gaps is not None and gaps.any():
            ranges[part] = [kept for starts in ranges[part] for kept in clear(starts, gaps, 1, length)]
            if not ranges[part]:
                raise DataError(
                    f"{name}: every window of its {part} part that could be scored spans a gap in time",
                    "type smaller data.input_length and data.horizon, or give the rows that are missing",
                )
    splits: dict[str, Split] = {
        part: Windows(series, [starts for starts in ranges[part] if starts], input_length, horizon, index)
        for part in PARTS
    }
    spec = DataSpec(
        task="forecasting",
        input_size=len(names),
        output_size=len(targets),
        input_length=input_length,
        horizon=horizon,
        season=season,
        target_index=index,
        target_names=targets,
        mean=mean[index].tolist(),
        std=std[index].tolist(),
        unit=unit,
        input_names=names,
        input_mean=mean.tolist(),
        input_std=std.tolist(),
    )
    return spec, splits


def _ranges(
    ends: list[list[int]], input_length: int, horizon: int, stride: int, source: str, fractions: bool
) -> dict[str, list[range]]:
    """For each part where the windows of each group begin.

    Raises:
        DataError: there is none.
    """
    ranges: dict[str, list[range]] = {}
    for number, part in enumerate(PARTS):
        ranges[part] = []
        for group in ends:
            low = group[0] if number == 0 else max(group[0], group[number] - input_length)
            high = group[number + 1] - input_length - horizon + 1
            ranges[part].append(range(low, max(high, low), stride if part == "train" else 1))
        if not any(map(len, ranges[part])):
            longest = max(group[number + 1] - (group[0] if number == 0 else group[number]) for group in ends)
            needed = input_length + horizon if number == 0 else horizon
            hint = "type smaller data.input_length and data.horizon, or give more rows"
            if number:
                larger = f", or a larger data.{part}_fraction" if fractions else ""
                hint = f"type a smaller data.horizon{larger}"
            raise DataError(
                f"{source} is too short: its {part} part has {longest} rows and a window needs {needed}", hint
            )
    return ranges


def _say_left_out(
    source: str, groups: list[str], ends: list[list[int]], ranges: dict[str, list[range]], length: int
) -> None:
    """One warning of the groups that have no window in some part, or in any."""
    short: dict[tuple[str, ...], list[str]] = {}
    for number, (name, group) in enumerate(zip(groups, ends, strict=True)):
        without = tuple(part for part in PARTS if not ranges[part][number])
        if without:
            short.setdefault(without, []).append(f"{name} ({group[-1] - group[0]} rows)")
    said = []
    for without, names in sorted(short.items(), key=lambda item: -len(item[0])):
        what = (
            "left out" if without == PARTS else f"without a window to {' and '.join(USES[part] for part in without)} on"
        )
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        said.append(f"{', '.join(names[:3])}{more} {what}")
    if said:
        warnings.warn(f"{source}: groups too short for windows of {length} rows: {'; '.join(said)}", stacklevel=3)


def clear(starts: range, marked: NDArray[np.bool_], low: int, high: int) -> list[range]:
    """The windows of `starts` none of whose rows `low` to `high` (without it) is marked, as ranges."""
    if not starts:
        return []
    before = np.concatenate(([0], np.cumsum(marked[starts[0] : starts[-1] + high])))
    first = np.arange(0, starts[-1] - starts[0] + 1, starts.step)
    whole = np.concatenate(([False], before[first + high] == before[first + low], [False]))
    edges = np.flatnonzero(whole[1:] != whole[:-1])
    return [starts[begin:end] for begin, end in edges.reshape(-1, 2).tolist()]


def time_split(first: int, end: int, val_fraction: float, test_fraction: float) -> list[int]:
    """First row and the end rows of train, val and test, of a group of rows `first` to `end`."""
    count = end - first
    test = round(count * test_fraction)
    val = round(count * val_fraction)
    return [first, end - test - val, end - test, end]
