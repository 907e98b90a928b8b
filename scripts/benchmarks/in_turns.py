"""Measure contestants in turns, and say what came out."""

import json
import statistics
import subprocess
import sys


def in_turns(contestants, repeats):
    """Median of each contestant's figures; A, B, A, B, ..., so that what slows the machine slows all of them.

    Args:
        contestants: functions without arguments by name, each giving a number.
        repeats: rounds.
    """
    figures = {name: [] for name in contestants}
    for turn in range(repeats):
        for name, run in contestants.items():
            figures[name].append(run())
            print(f"{turn + 1}/{repeats} {name}: {figures[name][-1]:.4g}", file=sys.stderr, flush=True)
    return {name: statistics.median(values) for name, values in figures.items()}


def row(what, ratio, bar, medians, repeats, better="higher"):
    """A row of the table; `better` says on which side of the bar a ratio has to be."""
    held = ratio >= bar if better == "higher" else ratio <= bar
    return {
        "row": what,
        "ratio": ratio,
        "bar": bar,
        "better": better,
        "held": held,
        "medians": medians,
        "repeats": repeats,
    }


def finish(rows):
    """Print the rows, as the last line."""
    print(json.dumps(rows), flush=True)


def number_from(command, **options):
    """The number in the last line that a process prints."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return float(done.stdout.strip().splitlines()[-1])
