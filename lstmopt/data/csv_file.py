"""Any CSV file as a forecasting problem."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.column_names import SHOWN, check_each_once, typed
from lstmopt.data.datamodule import DataModule
from lstmopt.data.series import clear, time_split, windows
from lstmopt.data.table import Table, read
from lstmopt.data.times import UNIX, gaps, guess_season, one_by_one, spans, typical_step
from lstmopt.errors import DataError


class CSVFile(DataModule):
    """One row per time step; the targets' past and the features are the input, the targets' future the output.

    The rows are split by time (each group for itself), and the scaler is fitted on the training rows alone.

    Of empty cells `ffill` repeats the value before, as it would be done in use; rows before a column's first value are
    left out. `interpolate` looks at the next known row, in inputs too, so that forecasts look better than they could be
    in use. With either, windows with a filled target are trained on, and neither validated nor tested on. `drop` leaves
    rows out, and those around them become neighbours.

    Where a time column shows that rows are missing, one warning says so; windows over such a gap are trained on, and
    neither validated nor tested on. A gap is longer than 1.5 times the longest usual step: 99 % of the steps are usual,
    and those that come again at the same time of day, so that months, weekends and nights are no gaps. Groups too short
    for windows are left out, and said.

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
        season: rows per season, for the baseline; None guesses it from the dates (or seconds since 1970) of most rows:
            a day's, or a week's where steps are days, as many as most days or weeks hold.
        missing: what to do with empty cells, and NA, NaN, null or None: refuse them (`error`), `ffill`, `drop` or
            `interpolate`.

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
        times, dates = self._times(table)
        values = np.stack(
            [table.numbers(n, self.missing, f"data.{'target' if n in self.targets else 'features'}") for n in names],
            axis=1,
        )
        parts, ends, filled, late, first = [], [], [], [], 0
        found: list[tuple[float, float, int]] = []  # of each gap its length, the typical step, and the row after it
        seasons: Counter[int] = Counter()
        groups = self._groups(table)
        for group, chosen in groups.items():
            rows = values[chosen]
            after_gap = np.zeros(len(rows), dtype=bool)
            if times is not None:
                at = times[chosen]
                number = np.arange(len(times))[chosen]
                self._check_order(table, number, at)
                seasons[guess_season(at) if dates else 1] += len(rows)
                jumps = gaps(at)
                after_gap[jumps] = True
                typical = typical_step(at) if len(jumps) else 0.0
                found += [(at[k] - at[k - 1], typical, number[k]) for k in jumps]
            rows, made_up, kept = self._fill(rows, names, f" of {group}" if group else "")
            parts.append(rows)
            filled.append(made_up)
            late.append(np.diff(np.cumsum(after_gap)[kept], prepend=0) > 0)  # a gap stays where rows beside it go
            ends.append(time_split(first, first + len(rows), self.val_fraction, self.test_fraction))
            first += len(rows)
        if not first:
            raise self._none_complete(values, names)
        after = np.concatenate(late)
        made = windows(
            parts[0] if len(parts) == 1 else np.concatenate(parts),
            names,
            self.targets,
            ends,
            self.input_length,
            self.horizon,
            self.season or (seasons.most_common(1)[0][0] if seasons else 1),
            self.stride,
            source=self.path,
            groups=list(groups) if self.group_column else None,
            filled=np.concatenate(filled),
            gaps=after,
        )
        if found:
            length = self.input_length + self.horizon
            starts = [range(begin, max(end - length + 1, begin)) for begin, _, _, end in ends]
            free = [kept for one in starts for kept in clear(one, after, 1, length)]
            self._say_gaps(table, found, dates, sum(map(len, starts)) - sum(map(len, free)))
        return made

    def _groups(self, table: Table) -> dict[str, NDArray[np.intp] | slice]:
        """The rows of each series."""
        if not self.group_column:
            return {"": slice(None)}
        numbers: dict[str, int] = {}
        cells = table.column(self.group_column, "data.group_column")
        number = np.array([numbers.setdefault(cell, len(numbers)) for cell in cells])
        order = np.argsort(number, kind="stable")
        return dict(zip(numbers, np.split(order, np.cumsum(np.bincount(number))[:-1]), strict=True))

    def _check_order(self, table: Table, number: NDArray[np.intp], at: NDArray[np.float64]) -> None:
        growing = np.diff(at) > 0
        if not growing.all():
            row = number[int(np.argmin(growing)) + 1]
            raise DataError(
                f"{self.path}: {self.time_column} does not grow in line {table.lines[row]}",
                "sort the rows by time and leave no time twice, or type data.group_column=COLUMN",
            )

    def _say_gaps(self, table: Table, found: list[tuple[float, float, int]], dates: bool, windows: int) -> None:
        """One warning, that names the longest of the gaps: its length, the typical step, and the row after it."""
        *lengths, row = max(found, key=lambda gap: gap[0])
        gap, typical = spans(lengths, dates)
        more = f" (and {len(found) - 1} more gap{'s' if len(found) > 2 else ''})" if len(found) > 1 else ""
        warnings.warn(
            f"{self.path}: time steps are not equal: line {table.lines[row]} comes {gap} after the line before, "
            f"typically {typical}{more}; {windows} windows span gaps, of which none validates or tests",
            stacklevel=2,
        )

    def _names(self, table: Table) -> list[str]:
        """The columns to read as numbers, targets first, after a look at every name that was typed."""
        if not self.targets:
            shown = ", ".join(typed("data.target", name) for name in table.names[:SHOWN])
            raise DataError("data.target=[] names no column to predict", f"type one of {shown}")
        for key, names in (
            ("data.target", self.targets),
            ("data.time_column", [self.time_column] if self.time_column else []),
            ("data.group_column", [self.group_column] if self.group_column else []),
            ("data.features", self.features or []),
        ):
            for name in names:
                table.check(name, key)
            check_each_once(names, key)
        reserved = {self.time_column, self.group_column}
        if reserved & set(self.targets):
            raise DataError("data.target cannot be the time or group column", "type another data.target")
        features = self.features
        if features is None:
            features = [name for name in table.names if name not in reserved]
        return self.targets + [name for name in features if name not in self.targets]

    def _times(self, table: Table) -> tuple[NDArray[np.float64] | None, bool]:
        """The time column in seconds, or as the numbers it holds; and whether these are dates."""
        if self.time_column is None:
            return None, False
        known, dates = table.times(self.time_column, "data.time_column") or self._read_times(table, self.time_column)
        none = np.flatnonzero(~np.isfinite(known))
        if len(none):
            raise DataError(
                f"{self.path}: {self.time_column} holds no time in line {table.lines[none[0]]}",
                "give every row its time, or leave data.time_column out where the rows are in order",
            )
        return known, dates or known[0] >= UNIX

    def _read_times(self, table: Table, column: str) -> tuple[NDArray[np.float64], bool]:
        cells = table.column(column, "data.time_column")
        try:
            return np.array(cells, dtype=np.float64), False
        except ValueError:
            times, wrong = one_by_one(cells)
        if wrong is not None:
            raise DataError(
                f"{self.path}: {column} holds {cells[wrong][:30]!r} in line {table.lines[wrong]}, which is no ISO date",
                "write times as 2024-01-31 or 2024-01-31 13:00:00",
            )
        return times, True

    def _fill(
        self, rows: NDArray[np.float64], names: list[str], group: str
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_] | slice]:
        """A group's rows without empty cells, which of them have a target that was filled, and which rows they are."""
        known = np.isfinite(rows)
        if known.all():
            return rows, np.zeros(len(rows), dtype=bool), slice(None)
        if self.missing == "drop":
            kept: NDArray[np.bool_] = np.asarray(known.all(axis=1))
            return rows[kept], np.zeros(int(kept.sum()), dtype=bool), kept
        empty = np.flatnonzero(~known.any(axis=0))
        if len(empty):
            problem = f"{self.path}: column {names[empty[0]]}{group} has no number at all"
            raise DataError(
                problem, self._without(names, int(empty[0])) + (f", or leave the rows{group} out" if group else "")
            )
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
        return rows, np.logical_not(known[:, : len(self.targets)].all(axis=1)), slice(start, None)

    def _none_complete(self, values: NDArray[np.float64], names: list[str]) -> DataError:
        counts = np.isfinite(values).sum(axis=0)
        column = int(counts.argmin())
        why = f"has {counts[column]} numbers in {len(values)} rows" if counts[column] else "is empty"
        problem = f"{self.path}: no row is complete: column {names[column]} {why}"
        return DataError(problem, self._without(names, column) + (", or data.missing=ffill" if counts[column] else ""))

    def _without(self, names: list[str], column: int) -> str:
        """What to type to do without a column."""
        if column < len(self.targets):
            return "type another data.target"
        return f"type {typed('data.features', *[name for name in names[len(self.targets) :] if name != names[column]])}"
