"""Trials per hour: two side by side with one thread each, beside one after the other with two threads.

    python scripts/benchmarks/trials.py [--repeats 5] [--epochs 20]

A trial is a whole `python train.py` on mackey_glass, its start included. Side by side, `OMP_NUM_THREADS=1` as in a
parallel sweep; one after the other, `OMP_NUM_THREADS=2`, which is what torch takes by itself on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from in_turns import finish, in_turns, row

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"H=32, T=48": (32, 48, 2.2), "H=64, T=96": (64, 96, 1.2)}


def trials_per_hour(hidden, length, epochs, side_by_side):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "data=mackey_glass", f"model.hidden_size={hidden}"]
        command += [f"data.input_length={length}", f"trainer.max_epochs={epochs}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1" if side_by_side else "2", "PYTHONPATH": str(ROOT)}
        began = time.perf_counter()
        running = []
        for number in range(2):
            run = [*command, f"seed={number}", f"hydra.run.dir={folder}/{number}"]
            running.append(subprocess.Popen(run, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            if not side_by_side:
                running[-1].wait()
        if any(process.wait() for process in running):
            raise RuntimeError(f"{' '.join(command)} failed")
        return 2 * 3600 / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    rows = []
    for name, (hidden, length, bar) in SIZES.items():
        found = in_turns(
            {
                word: lambda s=side, h=hidden, t=length: trials_per_hour(h, t, options.epochs, s)
                for word, side in (("side by side", True), ("one after the other", False))
            },
            options.repeats,
        )
        medians = {f"{word}, trials/h": value for word, value in found.items()}
        ratio = found["side by side"] / found["one after the other"]
        rows.append(row(f"2 parallel trials ÷ one after the other, {name}", ratio, bar, medians, options.repeats))
    finish(rows)


if __name__ == "__main__":
    main()
