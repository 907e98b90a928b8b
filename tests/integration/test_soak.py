"""A slice of `scripts/soak.py`: runs in one process leave nothing open and nothing alive."""

import gc
import importlib.util
import multiprocessing
import signal
import sys
from pathlib import Path

import pytorch_lightning as pl

SCRIPT = Path(__file__).parents[2] / "scripts" / "soak.py"
RUNS = 15


def left(runs):
    """In a process of its own: the sizes after each run, the signal handlers, and the trainers that still live."""
    spec = importlib.util.spec_from_file_location("soak", SCRIPT)
    sys.modules["soak"] = soak = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soak)
    before = [signal.getsignal(one) for one in signal.valid_signals()]
    found = [tuple(one) for one in soak.soak(runs, ["trainer.limit_train_batches=2"])]
    after = [signal.getsignal(one) for one in signal.valid_signals()]
    gc.collect()
    return found, before == after, sum(type(one) is pl.Trainer for one in gc.get_objects())


def test_fifteen_runs_leave_nothing():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found, same_handlers, trainers = pool.apply(left, (RUNS,))
    assert len(found) == RUNS
    assert len({sizes[1:] for sizes in found[1:]}) == 1, found  # open files, threads, temporary files
    assert same_handlers and trainers == 0
