"""Column names as they have to be typed on a shell."""

import difflib
import re
import shlex

from lstmopt.errors import DataError
from lstmopt.quoting import quoted

SHOWN = 8  # names of columns in a message
LISTS = {"data.features"}  # keys that hold lists alone


def typed(key: str, *names: str) -> str:
    """A setting as one word of a shell: `data.target=load`, `'data.target="Sales (EUR)"'`, `'data.features=[a,b]'`."""
    words = [name if _plain(name) else quoted(name) for name in names]
    value = ",".join(words)
    return shlex.quote(f"{key}=[{value}]" if key in LISTS or len(names) != 1 else f"{key}={value}")


def check(path: str, columns: list[str], name: str, key: str) -> None:
    """Make sure that the column that `key` asks for is there.

    Raises:
        DataError: it is not.
    """
    if name not in columns:
        near = difflib.get_close_matches(name, columns, n=1)
        shown = ", ".join(typed(key, column) for column in near or columns[:SHOWN])
        more = f" or another of {len(columns)} columns" if not near and len(columns) > SHOWN else ""
        raise DataError(
            f"{path} has no column {name}", f"type {'' if near or len(columns) == 1 else 'one of '}{shown}{more}"
        )


def check_each_once(names: list[str], key: str) -> None:
    """Make sure that no column is named twice.

    Raises:
        DataError: one is.
    """
    once = list(dict.fromkeys(names))
    twice = [name for name in once if names.count(name) > 1]
    if twice:
        raise DataError(f"{key} names {', '.join(twice)} twice", f"type {typed(key, *once)}")


def _plain(name: str) -> bool:
    words = {"null", "true", "false", "nan", "inf"}
    return bool(re.fullmatch(r"[A-Za-z_][\w.+/-]*", name, re.ASCII)) and name.lower() not in words
