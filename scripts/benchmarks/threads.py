"""The number of threads that the program chooses, beside the best of 1 and 2.

    python scripts/benchmarks/threads.py [--repeats 5]

Five sizes; each contestant is a training of its own process through the program, 64 sequences per batch, and the figure
is the median step after the trial. The program's own choice is timed as it goes on; 1 and 2 threads are set by
`callbacks.threads.count`.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress

from in_turns import finish, in_turns, number_from, row

SIZES = {
    "H=32, T=48": (32, 48, 1),
    "H=64": (64, 96, 1),
    "H=128": (128, 96, 1),
    "H=256": (256, 96, 1),
    "2xH=128": (128, 96, 2),
}
SKIP, STEPS = 30, 100


class Done(Exception):
    """Enough steps."""


def step(size, count):
    """Median milliseconds of a step."""
    import pytorch_lightning as pl
    from hydra import compose, initialize_config_dir

    from lstmopt.build import build
    from lstmopt.conf_dir import conf_dir
    from lstmopt.run import quiet

    times = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_):
            times.append(time.perf_counter())
            if len(times) > SKIP + STEPS:
                raise Done

    hidden, length, layers = SIZES[size]
    overrides = [f"model.hidden_size={hidden}", f"model.num_layers={layers}", f"data.input_length={length}"]
    overrides += ["data=mackey_glass", "data.horizon=24", f"callbacks.threads.count={count}"]
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", [*overrides, f"logger.tensorboard.save_dir={folder}", "trainer.max_epochs=20"])
        quiet()
        parts = build(cfg, folder)
        parts.trainer.callbacks.append(Watch())
        with suppress(Done):
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    taken = [b - a for a, b in zip(times[SKIP:], times[SKIP + 1 :], strict=False)]
    return 1e3 * statistics.median(taken)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, help="a size and a number of threads, in this process")
    options = parser.parse_args()
    if options.one:
        print(step(*options.one))
        return
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    rows = []
    for size in SIZES:

        def one(count, size=size):
            return lambda: number_from([sys.executable, __file__, "--one", size, count], env=free)

        found = in_turns({count: one(count) for count in ("auto", "1", "2")}, options.repeats)
        medians = {f"{count} threads, ms per step": value for count, value in found.items()}
        ratio = found["auto"] / min(found["1"], found["2"])
        rows.append(row(f"threads chosen ÷ the best, {size}", ratio, 1.05, medians, options.repeats, "lower"))
    finish(rows)


if __name__ == "__main__":
    main()
