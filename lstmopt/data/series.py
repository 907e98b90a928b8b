"""From a series in raw units to standardised windows, split by time."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.splits import Windows
from lstmopt.errors import DataError

PARTS = ("train", "val", "test")


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
    source: str = "the series",
    filled: NDArray[np.bool_] | None = None,
) -> tuple[DataSpec, dict[str, Split]]:
    """Windows over the three parts of one or more groups of rows.

    A window belongs to the part that holds all its targets; its input may begin in the part before. The scaler is
    fitted on the training rows of all groups alone.

    Args:
        rows: `[N, F]` in raw units, group after group, in order of time.
        names: the F columns.
        targets: the columns to predict.
        ends: for each group its first row and the end rows of train, val and test.
        season: steps per season, for the baseline.
        stride: rows between the starts of two training windows; val and test use every row.
        filled: `[N]`, rows with a target that was not measured; windows that would predict one neither validate nor
            test.

    Raises:
        DataError: a part is too short for one window, or every window would predict what was filled.
    """
    train = np.zeros(len(rows), dtype=bool)
    for first, train_end, _, _ in ends:
        train[first:train_end] = True
    scaled, mean, std = standardise(rows, train, names)
    series = torch.from_numpy(scaled)
    index = [names.index(target) for target in targets]
    splits: dict[str, Split] = {}
    for number, part in enumerate(PARTS):
        ranges = []
        for group in ends:
            low = group[0] if number == 0 else max(group[0], group[number] - input_length)
            high = group[number + 1] - input_length - horizon + 1
            ranges.append(range(low, max(high, low), stride if part == "train" else 1))
        if not any(map(len, ranges)):
            longest = max(group[number + 1] - (group[0] if number == 0 else group[number]) for group in ends)
            needed = input_length + horizon if number == 0 else horizon
            raise DataError(
                f"{source} is too short: its {part} part has {longest} rows and a window needs {needed}",
                "type smaller data.input_length and data.horizon, or give more rows",
            )
        if number and filled is not None and filled.any():
            ranges = [kept for starts in ranges for kept in measured(starts, filled, input_length, horizon)]
            if not ranges:
                raise DataError(
                    f"{source}: every window of its {part} part would be scored on targets that were filled",
                    "type a smaller data.horizon, or data.missing=drop",
                )
        splits[part] = Windows(series, [numbers for numbers in ranges if numbers], input_length, horizon, index)
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
    )
    return spec, splits


def measured(starts: range, filled: NDArray[np.bool_], input_length: int, horizon: int) -> list[range]:
    """The windows of `starts` (a step of 1) none of whose targets was filled, as ranges."""
    before = np.concatenate(([0], np.cumsum(filled)))
    first = np.arange(starts.start, starts.stop) + input_length
    whole = np.concatenate(([False], before[first + horizon] == before[first], [False]))
    edges = starts.start + np.flatnonzero(whole[1:] != whole[:-1])
    return [range(int(low), int(high)) for low, high in edges.reshape(-1, 2)]


def time_split(first: int, end: int, val_fraction: float, test_fraction: float) -> list[int]:
    """First row and the end rows of train, val and test, of a group of rows `first` to `end`."""
    count = end - first
    test = round(count * test_fraction)
    val = round(count * val_fraction)
    return [first, end - test - val, end - test, end]
