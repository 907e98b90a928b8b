"""Reading a CSV file into checked columns of numbers; every refusal names file, column and line."""

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lstmopt.errors import DataError

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass
class Table:
    """The cells of a CSV file as text, column by column; row k stands in line `lines[k]` of the file."""

    path: str
    columns: dict[str, list[str]]
    lines: list[int]

    def column(self, name: str, key: str) -> list[str]:
        """The cells of a column that `key` asks for.

        Raises:
            DataError: there is no such column.
        """
        if name not in self.columns:
            near = difflib.get_close_matches(name, self.columns, n=1)
            hint = f"type {key}={near[0]}" if near else f"type {key}= and one of {', '.join(self.columns)}"
            raise DataError(f"{self.path} has no column {name}", hint)
        return self.columns[name]

    def numbers(self, name: str, missing: str, key: str) -> NDArray[np.float64]:
        """A column as numbers, NaN where a cell is empty (and `missing` is not `error`).

        Raises:
            DataError: a cell is text, infinite, too large for float32, or empty.
        """
        cells = self.column(name, key)
        try:
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            values = np.array([self._number(name, row, cell) for row, cell in enumerate(cells)])
        with np.errstate(invalid="ignore"):
            beyond = np.flatnonzero(np.abs(values) > FLOAT32_MAX)
        if len(beyond):
            raise DataError(
                f"{self.path}: column {name} holds {cells[beyond[0]]} in line {self.lines[beyond[0]]}, beyond float32",
                "mend these rows, or leave the column out of data.features",
            )
        empty = np.flatnonzero(np.isnan(values))
        if len(empty) and missing == "error":
            raise DataError(
                f"{self.path}: column {name} has no number in {_places(self.lines, empty)}",
                "type data.missing=interpolate, ffill or drop, or fill them",
            )
        return values

    def _number(self, name: str, row: int, cell: str) -> float:
        try:
            return float(cell) if cell.strip() else float("nan")
        except ValueError:
            hint = "write numbers with a point" if cell.replace(",", ".").replace(".", "").isdigit() else "mend it"
            raise DataError(
                f"{self.path}: column {name} holds the text {cell[:30]!r} in line {self.lines[row]}",
                f"{hint}, or name the columns to use: data.features=[a,b]",
            ) from None


def read(path: str) -> Table:
    """Read a comma-separated file with a header line, UTF-8 with or without a byte-order mark.

    Raises:
        DataError: no such file, not text, empty, no header, or a line with too few or too many fields.
    """
    if not Path(path).is_file():
        kind = "is a folder" if Path(path).is_dir() else "does not exist"
        raise DataError(f"data.path={path} {kind}", "type data.path= and the path of a CSV file")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows, lines = [], []
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file in UTF-8: {error}", "save it as CSV, UTF-8, with commas") from None
    if not rows:
        raise DataError(f"{path} is empty", "type data.path= and the path of a CSV file with a header and rows")
    header = [name.strip() for name in rows[0]]
    _check_header(path, header)
    if len(rows) == 1:
        raise DataError(f"{path} has a header and no rows", "give it rows of data")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise DataError(
                f"{path}: line {line} has {len(row)} fields and the header has {len(header)}",
                "give every line as many fields as the header",
            )
    columns = dict(zip(header, map(list, zip(*rows[1:], strict=True)), strict=True))
    return Table(path, columns, lines[1:])


def _check_header(path: str, header: list[str]) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise DataError(f"{path} does not separate its columns by commas", "save it with commas and decimal points")
    if all(_is_number(name) for name in header):
        raise DataError(f"{path}: its first line holds numbers, no names of columns", "put a header line first")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}", "give each column its own name")
    if "" in header:
        raise DataError(f"{path}: column {header.index('') + 1} has no name", "give each column a name")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _places(lines: list[int], rows: NDArray[np.intp]) -> str:
    shown = ", ".join(str(lines[row]) for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"line{'s' if len(rows) > 1 else ''} {shown}{more}"
