"""The number of threads that the program chooses, beside the best of 1 and 2.

    python scripts/benchmarks/threads.py [--repeats 5]

Five sizes, 64 sequences per batch. Every repeat is a process of its own: the program chooses as it trains, and goes on
with 1 and 2 threads in turns, ten steps each; the figures are the median steps. A process that chose the slower number
has the ratio of the two, one that chose the faster one has 1. The median over the processes counts, and the mean is
shown, which a single wrong choice moves.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress

from in_turns import finish, row

from lstmopt.callbacks.threads import Threads

SIZES = {
    "H=32, T=48": (32, 48, 1),
    "H=64": (64, 96, 1),
    "H=128": (128, 96, 1),
    "H=256": (256, 96, 1),
    "2xH=128": (128, 96, 2),
}
BLOCK, BLOCKS = 10, 12


class Done(Exception):
    """Enough steps."""


def ratio(size):
    """Median step with the chosen number ÷ with the better one, and milliseconds with 1 and 2."""
    import pytorch_lightning as pl
    import torch
    from hydra import compose, initialize_config_dir

    from lstmopt.build import build
    from lstmopt.conf_dir import conf_dir
    from lstmopt.run import quiet

    times = {1: [], 2: []}

    class Watch(pl.Callback):
        """After the choice: a block with one thread, a block with two, and so on."""

        steps, before = 0, 0.0

        def on_train_batch_end(self, *_):
            if threads.chosen is None:
                return
            now = time.perf_counter()
            if self.steps % BLOCK:  # the first step of a block begins with the other number
                times[torch.get_num_threads()].append(now - self.before)
            self.before = now
            torch.set_num_threads(1 + self.steps // BLOCK % 2)
            self.steps += 1
            if self.steps > BLOCK * BLOCKS:
                raise Done

    hidden, length, layers = SIZES[size]
    overrides = [f"model.hidden_size={hidden}", f"model.num_layers={layers}", f"data.input_length={length}"]
    overrides += ["data=mackey_glass", "data.horizon=24", "callbacks.early_stopping=null"]
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", [*overrides, f"logger.tensorboard.save_dir={folder}", "trainer.max_epochs=20"])
        quiet()
        parts = build(cfg, folder)
        threads = next(callback for callback in parts.trainer.callbacks if isinstance(callback, Threads))
        parts.trainer.callbacks.append(Watch())
        with suppress(Done):
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    medians = {number: 1e3 * statistics.median(taken) for number, taken in times.items()}
    return medians[threads.chosen] / min(medians.values()), medians


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help="a size, in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ratio(options.one)))
        return
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    found = {size: [] for size in SIZES}
    for _ in range(options.repeats):
        for size, seen in found.items():
            done = subprocess.run(
                [sys.executable, __file__, "--one", size], env=free, stdout=subprocess.PIPE, text=True, check=True
            )
            seen.append(json.loads(done.stdout.splitlines()[-1]))
            print(size, seen[-1], file=sys.stderr, flush=True)
    rows = []
    for size, seen in found.items():
        medians = {f"{n} threads, ms per step": statistics.median(one[1][n] for one in seen) for n in "12"}
        medians["mean of the ratios"] = statistics.mean(one[0] for one in seen)
        middle = statistics.median(one[0] for one in seen)
        rows.append(row(f"threads chosen ÷ the best, {size}", middle, 1.05, medians, options.repeats, "lower"))
    finish(rows)


if __name__ == "__main__":
    main()
