"""How a batch size is looked for, whatever it is tried with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lstmopt.errors import ConfigError

FIRST = 8
LEAST_GAIN = 0.1  # of the throughput, for twice the batch
MARGIN = 0.9  # of the largest size that fitted, as memory breaks into pieces in the course of a run
FINE = 16  # the largest size is found to a 16th


@dataclass(frozen=True)
class Trial:
    """A batch size that was tried.

    Attributes:
        batch_size: sequences per batch.
        samples_per_second: of training.
        memory_mb: that its steps took, in MB.
    """

    batch_size: int
    samples_per_second: float
    memory_mb: float


Try = Callable[[int], Trial | None]  # None: it does not fit


def fastest(attempt: Try, most: int) -> list[Trial]:
    """Double the batch until a sample takes hardly less time, or memory ends.

    Args:
        attempt: tries a size.
        most: the largest size.

    Returns:
        The trials; the last whose gain over the one before was 10 % or more is `best(trials)`.

    Raises:
        ConfigError: not even one sequence fits.
    """
    trials = [_first(attempt, most)]
    while 2 * trials[-1].batch_size <= most:
        trial = attempt(2 * trials[-1].batch_size)
        if trial is None:
            break
        trials.append(trial)
        if best(trials) is not trial:
            break
    return trials


def best(trials: list[Trial]) -> Trial:
    """The last one that is 10 % faster than the one before, with all before it."""
    chosen = trials[0]
    for trial in trials[1:]:
        if trial.samples_per_second < (1 + LEAST_GAIN) * chosen.samples_per_second:
            break
        chosen = trial
    return chosen


def largest(attempt: Try, most: int) -> tuple[int, list[Trial]]:
    """Double the batch until it does not fit, then halve the distance until the largest is known to a 16th.

    Args:
        attempt: tries a size.
        most: the largest size.

    Returns:
        The size, with a margin where memory ends before `most`, and the trials that fitted.

    Raises:
        ConfigError: not even one sequence fits.
    """
    trials = [_first(attempt, most)]
    good = trials[0].batch_size
    bad = most + 1 if good == min(FIRST, most) else 2 * good  # tried already
    while good < min(most, bad - 1):
        size = min(2 * good, most) if bad > most else _between(good, bad)
        if size == good:
            break
        trial = attempt(size)
        if trial is None:
            bad = size
        else:
            good = size
            trials.append(trial)
        if bad - good <= max(bad // FINE, 1):
            break
    return (good if bad > most else even(int(MARGIN * good))), trials


def doubled(attempt: Try, most: int) -> Iterator[int]:
    """The first of 8, 4, 2 and 1 that fits, then twice that, and so on, as long as it fits.

    Args:
        attempt: tries a size.
        most: the largest size.

    Raises:
        ConfigError: not even one sequence fits.
    """
    size = _first(attempt, most).batch_size
    yield size
    while 2 * size <= most and attempt(2 * size) is not None:
        size *= 2
        yield size


def even(size: int) -> int:
    """A multiple of 8 where that is near; at least 1."""
    return size - size % 8 if size >= 64 else max(size, 1)


def _first(attempt: Try, most: int) -> Trial:
    size = min(FIRST, most)
    while size:
        trial = attempt(size)
        if trial is not None:
            return trial
        size //= 2
    raise ConfigError(
        "tune.batch_size: not even a batch of one sequence fits into memory",
        "type a smaller model.hidden_size, shorter sequences, or memory=recompute",
    )


def _between(good: int, bad: int) -> int:
    return max(even((good + bad) // 2), good)
