"""Ten times the data: the time per window, and the memory beyond the data.

    python scripts/benchmarks/scale.py [--repeats 5] [--rounds 25]

Windows of 96 + 24 rows, 7 channels, out of a random walk of 40,000 and of 400,000 rows, trained through the program's
parts (LSTM of 16 units, batches of 64) for 300 steps after 20. Time: both in turns in one process, for processes differ
by more than the bar. Memory: the growth of the resident set from the finished start until the last step, in a process
of its own each, which leaves out the arrays and holds all that training adds.
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress

import numpy as np
import psutil
import torch
from in_turns import finish, in_turns, number_from, row

WARM_UP, STEPS, BATCH = 20, 300, 64


class Done(Exception):
    """Enough steps."""


def run(rows):
    """Microseconds per window, and megabytes."""
    import pytorch_lightning as pl
    from hydra import compose, initialize_config_dir

    from lstmopt.build import build
    from lstmopt.conf_dir import conf_dir
    from lstmopt.data.datamodule import DataModule
    from lstmopt.data.series import time_split, windows
    from lstmopt.run import quiet

    class Walk(DataModule):
        def load(self):
            steps = np.random.default_rng(0).normal(size=(rows, 7)).cumsum(axis=0)
            names = [f"c{k}" for k in range(7)]
            return windows(steps, names, names, [time_split(0, rows, 0.15, 0.15)], 96, 24, 1)

    class Watch(pl.Callback):
        count, began, before = 0, 0.0, 0

        def on_train_batch_end(self, *_):
            self.count += 1
            if self.count == WARM_UP:
                self.before, self.began = psutil.Process().memory_info().rss, time.perf_counter()
            if self.count == WARM_UP + STEPS:
                self.seconds = time.perf_counter() - self.began
                raise Done

    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            overrides = ["model.hidden_size=16", f"logger.tensorboard.save_dir={folder}", "callbacks.threads.count=1"]
            cfg = compose("train", overrides)
        quiet()
        Walk.__module__ = "scale"
        cfg.data = {"_target_": "scale.Walk", "batch_size": BATCH, "seed": 0}
        sys.modules["scale"] = type(sys)("scale")
        sys.modules["scale"].Walk = Walk
        parts = build(cfg, folder)
        parts.trainer.callbacks.append(watch)
        with suppress(Done):
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return 1e6 * watch.seconds / (STEPS * BATCH), (psutil.Process().memory_info().rss - watch.before) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=25, help="turns of the times, in one process")
    parser.add_argument("--memory", type=int, help="rows of the series: its memory, in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(run(options.memory)[1])
        return
    sizes = {"1x": 40_000, "10x": 400_000}
    speed = in_turns({name: lambda r=rows: run(r)[0] for name, rows in sizes.items()}, options.rounds)
    command = [sys.executable, __file__, "--memory"]
    memory = in_turns(
        {name: lambda r=rows: number_from([*command, str(r)]) for name, rows in sizes.items()}, options.repeats
    )
    rows = [
        row(
            "time per window, 10 times the data ÷ 1 times",
            speed["10x"] / speed["1x"],
            1.05,
            {f"{name}, µs per window": value for name, value in speed.items()},
            options.rounds,
            "lower",
        ),
        row(
            "memory beyond the data, 10 times − 1 times, in MB of 11 MB of series",
            memory["10x"] - memory["1x"],
            1.0,
            {f"{name}, MB": value for name, value in memory.items()},
            options.repeats,
            "lower",
        ),
    ]
    finish(rows)


if __name__ == "__main__":
    main()
