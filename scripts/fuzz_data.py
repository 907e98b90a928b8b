"""Damage data files in every way, and see whether each is read or refused in one message.

    python scripts/fuzz_data.py [--files 10000] [--seed 0]

Valid files (csv, npz, .ts, text) are cut, filled, flipped, repeated, and sprinkled with what breaks parsers. A file
loads, or a DataError of at most five lines says what is wrong; anything else is a failure, told with its number.
"""

import argparse
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data")]

import damaged_files  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts, began = Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.files):
            kind, answer = damaged_files.one(random.Random(f"{options.seed} {number}"), Path(folder))
            counts[kind, answer if isinstance(answer, str) else "failed"] += 1
            if not isinstance(answer, str):
                print(f"\n{kind}, number {number} of seed {options.seed}:")
                traceback.print_exception(answer, limit=-3)
            if number % 100 == 99:
                print(f"\r{number + 1}/{options.files} {time.monotonic() - began:.0f} s ", end="", flush=True)
    print("\n\n| kind | loaded | refused | failed |\n|---|---|---|---|")
    for kind in damaged_files.KINDS:
        print(f"| {kind} | {counts[kind, 'loaded']} | {counts[kind, 'refused']} | {counts[kind, 'failed']} |")
    sys.exit(any(answer == "failed" for _, answer in counts))


if __name__ == "__main__":
    main()
