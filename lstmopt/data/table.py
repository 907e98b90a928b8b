"""Reading a CSV file into checked columns of numbers; every refusal names file, column and line."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lstmopt.data import column_names, times
from lstmopt.errors import DataError

FLOAT32_MAX = float(np.finfo(np.float32).max)
PACKED = {".gz", ".bz2", ".xz", ".lzma"}  # what numpy would unpack
TEXT = 40  # bytes of a cell of text in a file that is read as a whole
EMPTY = {"", "na", "n/a", "nan", "null", "none"}  # cells without a number, in letters of any size
EMPTY_CELLS = re.compile(rb"(?i)(?:(?<=[,\n])|^)(?:na|n/a|null|none)?(?=[,\n]|$)")
DATE = re.compile(r"\s*(\d{4}-\d\d?|\d{1,4}([-/.])\d{1,2}\2\d{1,4})(?!\d|[.,])")


class Table:
    """The columns of a CSV file: numbers where a whole column is one, otherwise its cells as text.

    Args:
        path: the file.
        names: of the columns, in order.
        numeric: columns as float64, in which no cell was empty, text, or written in a way of its own.
        texts: columns as text, or as bytes of ASCII.
        lines: row k stands in line `lines[k]` of the file; a list where it was read cell by cell, None where it has to
            be to say.
    """

    def __init__(
        self,
        path: str,
        names: list[str],
        numeric: dict[str, NDArray[np.float64]],
        texts: dict[str, list[str] | NDArray[np.bytes_]],
        lines: list[int] | range | None,
    ) -> None:
        self.path, self.names, self._numeric, self._texts, self._lines = path, names, numeric, texts, lines
        self._cells: Table | None = None

    @property
    def lines(self) -> list[int] | range:
        """The line of the file in which each row stands."""
        return self.cells().lines if self._lines is None else self._lines

    def cells(self) -> "Table":
        """The same file as text, cell by cell: what takes time, and knows everything."""
        if isinstance(self._lines, list):
            return self
        if self._cells is None:
            self._cells = _read_cells(self.path)
        return self._cells

    def column(self, name: str, key: str) -> list[str]:
        """The cells of a column that `key` asks for.

        Raises:
            DataError: there is no such column.
        """
        self.check(name, key)
        cells = self._texts.get(name)
        if cells is None:
            return self.cells().column(name, key)
        return cells if isinstance(cells, list) else [cell.decode("ascii") for cell in cells.tolist()]

    def check(self, name: str, key: str) -> None:
        """Make sure that the column that `key` asks for is there.

        Raises:
            DataError: it is not.
        """
        column_names.check(self.path, self.names, name, key)

    def numbers(self, name: str, missing: str, key: str) -> NDArray[np.float64]:
        """A column as numbers, NaN where a cell is empty, or says so (and `missing` is not `error`).

        Raises:
            DataError: a cell is text, infinite, too large for float32, or empty.
        """
        self.check(name, key)
        if name in self._numeric:
            values = self._numeric[name]
            if _small(values) and (missing != "error" or not np.isnan(values).any()):
                return values
        return self.cells()._numbers(name, missing, key)

    def times(self, name: str, key: str) -> tuple[NDArray[np.float64], bool] | None:
        """A column of numbers or ISO dates as numbers (dates in seconds, UTC), and whether it holds dates; None where
        the cells are neither, or have to be read one by one.

        Raises:
            DataError: there is no such column.
        """
        self.check(name, key)
        if name in self._numeric:
            return self._numeric[name], False
        cells = self._texts.get(name)
        known = None if cells is None or isinstance(cells, list) else times.at_once(cells)
        return None if known is None else (known, True)

    def _numbers(self, name: str, missing: str, key: str) -> NDArray[np.float64]:
        cells = self._texts[name]
        assert isinstance(cells, list)
        try:
            if any("_" in cell for cell in cells):  # which Python's float takes
                raise ValueError
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            values = np.array([self._number(name, key, row, cell) for row, cell in enumerate(cells)])
        with np.errstate(invalid="ignore"):
            beyond = np.flatnonzero(np.abs(values) > FLOAT32_MAX)
        if len(beyond):
            raise DataError(
                f"{self.path}: column {name} holds {cells[beyond[0]]} in line {self.lines[beyond[0]]}, beyond float32",
                f"mend these rows, or {_instead(key)}",
            )
        empty = np.flatnonzero(np.isnan(values))
        if len(empty) and missing == "error":
            raise DataError(
                f"{self.path}: column {name} has no number in {_places(self.lines, empty)}",
                "type data.missing=ffill, drop or interpolate, or fill them",
            )
        return values

    def _number(self, name: str, key: str, row: int, cell: str) -> float:
        try:
            if "_" in cell:
                raise ValueError
            return float("nan") if cell.strip().lower() in EMPTY else float(cell)
        except ValueError:
            if DATE.match(cell):
                hint = f"type {column_names.typed('data.time_column', name)}"
            elif cell.replace(",", ".").replace(".", "").isdigit():
                hint = "write numbers with a point"
            else:
                hint = f"mend it, type {column_names.typed('data.group_column', name)} if it tells series apart"
            raise DataError(
                f"{self.path}: column {name} holds the text {cell[:30]!r} in line {self.lines[row]}",
                f"{hint}, or {_instead(key)}",
            ) from None


def read(path: str) -> Table:
    """Read a comma-separated file with a header line, UTF-8 with or without a byte-order mark.

    Columns of plain numbers are parsed as a whole. Whatever is not plain (quotes, an empty cell among text, a line with
    another number of fields) is read cell by cell, which finds what is wrong and says where.

    Raises:
        DataError: no such file, not text, empty, no header, or a line with too few or too many fields.
    """
    if not Path(path).is_file():
        kind = "is a folder" if Path(path).is_dir() else "does not exist"
        raise DataError(f"data.path={path} {kind}", "type data.path= and the path of a CSV file")
    return _read_whole(path) or _read_cells(path)


def _read_whole(path: str) -> Table | None:
    """The columns by numpy's parser, which counts the fields of every line; None where the file is not plain."""
    if Path(path).suffix in PACKED:
        return None
    content = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    start = content.find(b"\n") + 1 or len(content)
    if b'"' in content or b"\0" in content or content.find(b"_", start) >= 0:
        return None
    end = content.find(b"\n", start)
    first = content[start : end if end >= 0 else None]
    try:
        header, cells = ([cell.strip() for cell in line.decode().split(",")] for line in (content[:start], first))
    except UnicodeDecodeError:
        return None
    if len(cells) != len(header) or not first.strip():
        return None
    _check_header(path, header)
    if not content.isascii() and not content[start:].isascii():
        return None
    blank = content.find(b"\n\n", start - 1) >= 0
    del content
    kinds = [np.float64 if cell.lower() in EMPTY or _is_number(cell) else f"S{TEXT}" for cell in cells]
    try:
        found, empty = _parse(str(Path(path).absolute()), kinds, 1), False  # a path is read in chunks
    except (ValueError, UnicodeError):
        if blank:
            return None
        rows = Path(path).read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n").partition(b"\n")[2]
        rows = re.sub(EMPTY_CELLS, b"nan", rows.removesuffix(b"\n"))
        try:
            found, empty = _parse(io.BytesIO(rows), kinds, 0), True
        except (ValueError, UnicodeError):
            return None
        del rows
    numeric: dict[str, NDArray[np.float64]] = {}
    texts: dict[str, list[str] | NDArray[np.bytes_]] = {}
    for k, (name, kind) in enumerate(zip(header, kinds, strict=True)):
        column = np.ascontiguousarray(found[str(k)])
        if kind == np.float64:
            numeric[name] = column
        elif np.char.str_len(column).max() == TEXT:
            return None  # it may have been longer
        elif np.char.str_len(column).all() and not (empty and (column == b"nan").any()):
            texts[name] = column
    return Table(path, header, numeric, texts, None if blank else range(2, 2 + len(found)))


def _parse(source: str | io.BytesIO, kinds: list[Any], skip: int) -> NDArray[Any]:
    """Rows of a structured array, by numpy."""
    return np.loadtxt(
        source,
        dtype=[(str(k), kind) for k, kind in enumerate(kinds)],
        delimiter=",",
        comments=None,
        skiprows=skip,
        ndmin=1,
        encoding="utf-8",
    )


def _read_cells(path: str) -> Table:
    """Every cell as text, by the csv module."""
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
    columns: dict[str, Any] = dict(zip(header, map(list, zip(*rows[1:], strict=True)), strict=True))
    return Table(path, header, {}, columns, lines[1:])


def _small(values: NDArray[np.float64]) -> bool:
    """Whether float32 holds all of them."""
    with np.errstate(invalid="ignore"):
        return not (np.abs(values) > FLOAT32_MAX).any()


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


def _instead(key: str) -> str:
    """What to do without the column that `key` asked for."""
    return "type another data.target" if key == "data.target" else "name the columns to use: 'data.features=[a,b]'"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _places(lines: list[int] | range, rows: NDArray[np.intp]) -> str:
    shown = ", ".join(str(lines[row]) for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"line{'s' if len(rows) > 1 else ''} {shown}{more}"
