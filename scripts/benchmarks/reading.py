"""Seconds and memory of reading and checking a CSV file of a million rows by five columns.

    python scripts/benchmarks/reading.py [--repeats 5]

With numbers alone, and with ISO times in the first column; the whole way from the file to windows, in a process of its
own. Memory is the most that the process ever held, torch included, as Linux counts it for what is in memory since the
program began (`ru_maxrss` begins with the size of the process that started it).
"""

import argparse
import re
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from in_turns import finish, in_turns, number_from, row

ROWS = 1_000_000
OPTIONS = {"batch_size": 64, "seed": 0, "features": None, "group_column": None, "input_length": 96, "horizon": 24}
OPTIONS |= {"stride": 1, "val_fraction": 0.1, "test_fraction": 0.1, "season": None, "missing": "error"}


def write(path, times):
    values = np.random.default_rng(0).normal(size=(ROWS, 4 if times else 5)).round(4).astype(str)
    if times:
        start = datetime(2000, 1, 1)
        first = np.array([[str(start + timedelta(minutes=k))] for k in range(ROWS)])
        values = np.concatenate((first, values), axis=1)
    path.write_text("a,b,c,d,e\n" + "\n".join(map(",".join, values)) + "\n")


def read(path, times, what):
    from lstmopt.data.csv_file import CSVFile

    began = time.perf_counter()
    CSVFile(path=path, target="e", time_column="a" if times else None, **OPTIONS).setup()
    seconds = time.perf_counter() - began
    if what == "seconds":
        return seconds
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=3, help="a file, whether it has times, and seconds or memory")
    options = parser.parse_args()
    if options.one:
        path, times, what = options.one
        print(read(path, times == "True", what))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for times in (False, True):
            path = Path(folder) / f"{times}.csv"
            write(path, times)
            command = [sys.executable, __file__, "--one", str(path), str(times)]
            found = in_turns(
                {what: lambda w=what, c=command: number_from([*c, w]) for what in ("seconds", "MB")}, options.repeats
            )
            name = "a million rows by five columns" + (" with times" if times else "")
            medians = {"read and checked, s": found["seconds"]}
            rows.append(row(f"{name}, seconds", found["seconds"], 2.0, medians, options.repeats, "lower"))
            medians = {"process, MB": found["MB"]}
            rows.append(row(f"{name}, MB", found["MB"], 600.0, medians, options.repeats, "lower"))
    finish(rows)


if __name__ == "__main__":
    main()
