"""Times of rows, and what they tell: the season, and where time steps are missing."""

import warnings
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

DAY = 86400.0
UNIX = 1e8  # numbers from there on are taken for seconds since 1970
PIECE = 500  # of more cells numpy reads dates without Python's lock, and crashes at one that it cannot read


def at_once(cells: NDArray[np.bytes_]) -> NDArray[np.float64] | None:
    """ISO dates in seconds, UTC; None where a cell is none, or has a time zone."""
    first = cells.view(np.uint8).reshape(len(cells), -1)[:, 0]
    if not ((first >= ord("0")) & (first <= ord("9"))).all():
        return None  # numpy would take `now` and `NaT` for dates
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy knows no time zones, and warns of them
            pieces = [cells[k : k + PIECE].astype("datetime64[us]") for k in range(0, len(cells), PIECE)]
    except (ValueError, Warning):
        return None
    return np.concatenate(pieces).astype(np.float64) / 1e6


def one_by_one(cells: list[str]) -> tuple[NDArray[np.float64], int | None]:
    """ISO dates in seconds, UTC where no time zone is given; and the first row that holds none."""
    times = np.zeros(len(cells))
    for row, cell in enumerate(cells):
        try:
            time = datetime.fromisoformat(cell.strip())
        except ValueError:
            return times, row
        times[row] = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return times, None


def guess_season(times: NDArray[np.float64]) -> int:
    """Rows per season of times in seconds.

    For steps below a day those of a day (hourly 24, every 15 minutes 96), for daily ones those of a week (7, or 5
    without weekends), weekly 52, monthly 12, otherwise, and below a minute, 1. Where days or weeks are not full (hours
    of business, working days) the rows of most of them count.
    """
    if len(times) < 2:
        return 1
    step = typical_step(times)
    if 60 <= step < DAY and abs(DAY / step - round(DAY / step)) < 0.01:
        return _rows_per(DAY, times) or round(DAY / step)
    if abs(step - DAY) < 0.05 * DAY:
        return _rows_per(7 * DAY, times) or 7
    for length, season in ((7 * DAY, 52), (30.4 * DAY, 12)):
        if abs(step - length) < 0.05 * length:
            return season
    return 1


def typical_step(times: NDArray[np.float64]) -> float:
    """The median time from one row to the next."""
    return float(np.median(np.diff(times)))


def _rows_per(period: float, times: NDArray[np.float64]) -> int:
    """The median over the periods that hold rows; 0 where not even two are there to the end."""
    counts = np.diff(np.searchsorted(times, np.arange(times[0], times[-1], period)))
    return round(float(np.median(counts[counts > 0]))) if len(counts) > 1 else 0


def gaps(times: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows that come unusually long after the row before: more than 1.5 times the longest usual step.

    Usual is what 99 % of the steps do not exceed, and what comes again at the same time of day, at least every month:
    months of 28 to 31 days, weekends and nights are no gaps.
    """
    steps = np.diff(times)
    if not len(steps):
        return np.zeros(0, dtype=np.intp)
    place = int(0.99 * (len(steps) - 1))
    usual = np.partition(steps, place)[place]
    rare = np.flatnonzero(steps > 1.5 * usual)
    if len(rare):
        typical = typical_step(times)
        kinds = np.round(np.stack((steps[rare], times[rare] % DAY)) / typical)
        _, kind, counts = np.unique(kinds, axis=1, return_inverse=True, return_counts=True)
        again = counts[kind.reshape(-1)] >= max(3, (times[-1] - times[0]) / (30 * DAY))
        rare = rare[steps[rare] > 1.5 * max(usual, steps[rare[again]].max(initial=0))]
    return rare + 1


def spans(lengths: list[float], dates: bool) -> list[str]:
    """Lengths of time as text, in the unit that fits the last one: `201 h`, `1 h`; numbers where they are no dates."""
    units = [("d", DAY), ("h", 3600.0), ("min", 60.0), ("s", 0.0)]
    unit, seconds = next(one for one in units if lengths[-1] >= one[1]) if dates else ("", 1.0)
    return [f"{length / (seconds or 1.0):.6g} {unit}".rstrip() for length in lengths]
