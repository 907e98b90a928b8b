"""Many short runs of the whole program in one process: does it grow, or leave files, threads or temporary files open?

    python scripts/soak.py [--runs 200] [OVERRIDE ...]

Every run is composed, checked, built, trained, tested and logged to TensorBoard in a folder of its own, with the
default callbacks, as `lstmopt-train` does it. After each run: resident memory, open files, threads, entries of the
temporary folder. Memory may grow by 5 % from run 20 to the last one, the others not at all; where they do, the exit
code is 1.
"""

import argparse
import contextlib
import gc
import io
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from lstmopt.conf_dir import conf_dir

SETTLED = 20  # runs after which caches are full and allocators warm
GROWTH = 0.05
SHORT = [
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=4",
    "trainer.accelerator=cpu",
    "data.input_length=52",
    "data.horizon=4",
    "model.hidden_size=8",
    "loader=resident",
    "logger=tensorboard",
]


class Sizes(NamedTuple):
    """What must not grow."""

    rss_mb: float
    fds: int
    threads: int
    temporary: int


def run_once(folder, overrides):
    """One run, with what it prints kept back."""
    from lstmopt.run import run

    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*SHORT, f"hydra.run.dir={folder}", *overrides], return_hydra_config=True)
    folder.mkdir(parents=True)
    with open_dict(cfg):
        cfg.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(cfg)
        del cfg["hydra"]
    with contextlib.redirect_stdout(io.StringIO()):
        run(cfg)


def sizes():
    """Of this process now."""
    gc.collect()
    process = psutil.Process()
    return Sizes(
        process.memory_info().rss / 1e6,
        process.num_fds(),
        threading.active_count(),
        len(os.listdir(tempfile.gettempdir())),
    )


def soak(runs, overrides=(), show=False):
    """Sizes after each run."""
    found = []
    with tempfile.TemporaryDirectory() as outputs, tempfile.TemporaryDirectory() as scratch:
        before, tempfile.tempdir = tempfile.tempdir, scratch  # nobody else's files are counted
        os.environ["TMPDIR"], outer = scratch, os.environ.get("TMPDIR")
        try:
            for number in range(runs):
                run_once(Path(outputs) / str(number), [f"seed={number}", *overrides])
                found.append(sizes())
                if show and ((number + 1) % SETTLED == 0 or number == 0):
                    print(row(number + 1, found[-1]), flush=True)
        finally:
            tempfile.tempdir = before
            del os.environ["TMPDIR"]
            if outer is not None:
                os.environ["TMPDIR"] = outer
    return found


def row(number, size):
    return f"| {number} | {size.rss_mb:.1f} | {size.fds} | {size.threads} | {size.temporary} |"


def problems(found, settled):
    """What grew from run `settled` to the last."""
    first, last = found[settled - 1], found[-1]
    told = [
        f"{name}: {getattr(first, name)} after run {settled}, {getattr(last, name)} at the end"
        for name in ("fds", "threads", "temporary")
        if getattr(last, name) > getattr(first, name)
    ]
    if last.rss_mb > first.rss_mb * (1 + GROWTH):
        told.append(f"memory: {first.rss_mb:.1f} MB after run {settled}, {last.rss_mb:.1f} MB at the end")
    return told


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("overrides", nargs="*", help="as on the command line of train.py")
    options = parser.parse_args()
    began = time.monotonic()
    print("| run | RSS, MB | open files | threads | temporary files |\n|---|---|---|---|---|")
    found = soak(options.runs, options.overrides, show=True)
    settled = min(SETTLED, (len(found) + 1) // 2)
    growth = found[-1].rss_mb / found[settled - 1].rss_mb - 1
    print(f"\n{len(found)} runs in {time.monotonic() - began:.0f} s; memory {growth:+.1%} since run {settled}")
    told = problems(found, settled)
    print("\n".join(told) or "nothing grows")
    sys.exit(bool(told))


if __name__ == "__main__":
    main()
