"""Any CSV file as a forecasting problem."""

import warnings
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.series import time_split, windows
from lstmopt.data.table import Table, read
from lstmopt.errors import DataError


class CSVFile(DataModule):
    """One row per time step; the targets' past and the features are the input, the targets' future the output.

    The rows are split by time (each group for itself), and the scaler is fitted on the training rows alone.

    Of empty cells `ffill` repeats the value before, as it would be done in use; rows before a column's first value are
    left out. `interpolate` looks at the next known row, in inputs too, so that forecasts look better than they could be
    in use. With either, windows with a filled target are trained on, and neither validated nor tested on. `drop` leaves
    rows out, and those around them become neighbours.

    Args:
        batch_size: windows per batch.
        seed: seed of the batch order.
        path: a CSV file with a header.
        target: the column or columns to predict.
        features: further input columns; None takes every column but time and group.
        time_column: holds ISO dates or numbers that grow; None where the rows are in order.
        group_column: rows of different groups are different series.
        input_length: rows the model sees.
        horizon: rows to predict.
        stride: rows between the starts of two training windows.
        val_fraction: part of the rows, before the test rows.
        test_fraction: part of the rows, the newest.
        season: rows per season, for the baseline; None guesses it from the times, for most of the rows.
        missing: what to do with empty cells: refuse them (`error`), `ffill`, `drop` or `interpolate`.

    Raises:
        DataError: the file or a column is missing or not usable; see `lstmopt.data.table`.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int,
        path: str,
        target: str | list[str],
        features: list[str] | None,
        time_column: str | None,
        group_column: str | None,
        input_length: int,
        horizon: int,
        stride: int,
        val_fraction: float,
        test_fraction: float,
        season: int | None,
        missing: Literal["error", "drop", "ffill", "interpolate"],
    ) -> None:
        super().__init__(batch_size, seed)
        self.path = path
        self.targets = [target] if isinstance(target, str) else target
        self.features = features
        self.time_column, self.group_column = time_column, group_column
        self.input_length, self.horizon, self.stride = input_length, horizon, stride
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.season, self.missing = season, missing

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [path] if (path := Path(self.path)).is_file() else []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read and check the file."""
        table = read(self.path)
        if self.val_fraction + self.test_fraction >= 1:
            raise DataError("no rows are left to train on", "type smaller data.val_fraction and data.test_fraction")
        names = self._names(table)
        values = np.stack([table.numbers(name, self.missing, "data.features") for name in names], axis=1)
        times = self._times(table)
        groups = np.array(table.column(self.group_column, "data.group_column") if self.group_column else [""])
        parts, ends, filled, first = [], [], [], 0
        seasons: Counter[int] = Counter()
        for group in dict.fromkeys(groups.tolist()):
            chosen = np.broadcast_to(groups == group, len(values))
            rows = values if chosen.all() else values[chosen]
            at = times[chosen] if times is not None else None
            if at is not None and not (growing := np.diff(at) > 0).all():
                row = np.flatnonzero(chosen)[int(np.argmin(growing)) + 1]
                raise DataError(
                    f"{self.path}: {self.time_column} does not grow in line {table.lines[row]}",
                    "sort the rows by time and leave no time twice, or type data.group_column=COLUMN",
                )
            seasons[guess_season(at) if at is not None else 1] += len(rows)
            rows, made_up = self._fill(rows, names, f" of {group}" if group else "")
            parts.append(rows)
            filled.append(made_up)
            ends.append(time_split(first, first + len(rows), self.val_fraction, self.test_fraction))
            first += len(rows)
        return windows(
            parts[0] if len(parts) == 1 else np.concatenate(parts),
            names,
            self.targets,
            ends,
            self.input_length,
            self.horizon,
            seasons.most_common(1)[0][0] if self.season is None else self.season,
            self.stride,
            source=self.path,
            filled=np.concatenate(filled),
        )

    def _names(self, table: Table) -> list[str]:
        for target in self.targets:
            table.check(target, "data.target")
        reserved = {self.time_column, self.group_column}
        if reserved & set(self.targets):
            raise DataError("data.target cannot be the time or group column", "type another data.target")
        features = self.features
        if features is None:
            features = [name for name in table.names if name not in reserved]
        return self.targets + [name for name in features if name not in self.targets]

    def _times(self, table: Table) -> NDArray[np.float64] | None:
        """The time column in seconds, or as the numbers it holds."""
        if self.time_column is None:
            return None
        known = table.times(self.time_column, "data.time_column")
        if known is None:
            known = self._read_times(table, table.column(self.time_column, "data.time_column"))
        none = np.flatnonzero(~np.isfinite(known))
        if len(none):
            raise DataError(
                f"{self.path}: {self.time_column} holds no time in line {table.lines[none[0]]}",
                "give every row its time, or leave data.time_column out where the rows are in order",
            )
        return known

    def _read_times(self, table: Table, cells: list[str]) -> NDArray[np.float64]:
        try:
            return np.array(cells, dtype=np.float64)
        except ValueError:
            pass
        times = []
        for cell, line in zip(cells, table.lines, strict=True):
            try:
                time = datetime.fromisoformat(cell.strip())
                times.append((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
            except ValueError:
                raise DataError(
                    f"{self.path}: {self.time_column} holds {cell[:30]!r} in line {line}, which is no ISO date",
                    "write times as 2024-01-31 or 2024-01-31 13:00:00",
                ) from None
        return np.array(times)

    def _fill(
        self, rows: NDArray[np.float64], names: list[str], group: str
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """A group's rows without empty cells, and which of them have a target that was filled."""
        known = np.isfinite(rows)
        if self.missing == "drop":
            rows = rows if known.all() else rows[known.all(axis=1)]
            return rows, np.zeros(len(rows), dtype=bool)
        if known.all():
            return rows, np.zeros(len(rows), dtype=bool)
        empty = np.flatnonzero(~known.any(axis=0))
        if len(empty):
            problem = f"{self.path}: column {names[empty[0]]}{group} has no number at all"
            raise DataError(problem, "leave it out of data.features")
        begin = known.argmax(axis=0)  # of each column
        start = int(begin.max()) if self.missing == "ffill" else 0
        if start:
            why = f"as {names[int(begin.argmax())]} has no value in them"
            warnings.warn(f"{self.path}: the first {start} rows{group} are left out, {why}", stacklevel=2)
        rows, known = rows[start:].copy(), known[start:]
        steps = np.arange(len(rows))
        for column in range(rows.shape[1]):
            at = steps[known[:, column]]
            if self.missing == "interpolate":
                rows[:, column] = np.interp(steps, at, rows[at, column])
            else:
                rows[:, column] = rows[at[np.searchsorted(at, steps, side="right") - 1], column]
        return rows, np.logical_not(known[:, : len(self.targets)].all(axis=1))


def guess_season(times: NDArray[np.float64]) -> int:
    """Rows per season of times in seconds: those of a day for steps below one (hourly 24, every 15 minutes 96), daily
    7, weekly 52, monthly 12, otherwise, and below a minute, 1."""
    if len(times) < 2:
        return 1
    step = float(np.median(np.diff(times)))
    day = 86400.0
    if 60 <= step < day and abs(day / step - round(day / step)) < 0.01:
        return round(day / step)
    for length, season in ((day, 7), (7 * day, 52), (30.4 * day, 12)):
        if abs(step - length) < 0.05 * length:
            return season
    return 1
