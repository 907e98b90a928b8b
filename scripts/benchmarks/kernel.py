"""The compiled LSTM kernel beside torch's: forward and backward of a layer.

    python scripts/benchmarks/kernel.py [--repeats 9]

Batches of 64 sequences of 96 steps with 8 features (and stacked, with as many features as units), a loss of the last
output, float32, with one thread and with two, memory kept from step to step. Both are run in one process in turns,
five steps each, after their results were compared.
"""

import argparse
import statistics
import sys
import time

import torch
from in_turns import finish, row

from lstmopt.callbacks.keep_memory import LARGEST, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, glibc
from lstmopt.kernels.lstm_cpu import check
from lstmopt.models.padded_lstm import PaddedLSTM

BATCH, STEPS, FEATURES, EACH = 64, 96, 8, 5
SIZES = [(16, FEATURES), (32, FEATURES), (64, FEATURES), (64, 64), (128, FEATURES), (128, 128), (224, FEATURES)]


def steps(lstm, x, count):
    """Seconds of each of some steps, and the gradients of the last one."""
    times = []
    for _ in range(count):
        lstm.zero_grad()
        began = time.perf_counter()
        lstm(x)[0][:, -1].square().sum().backward()
        times.append(time.perf_counter() - began)
    return times, [weight.grad.clone() for weight in lstm.parameters()]


def compared(hidden, features, threads, repeats):
    """One row."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    lstm, x = PaddedLSTM(features, hidden, batch_first=True), torch.randn(BATCH, STEPS, features)
    times, gradients = {False: [], True: []}, {}
    for turn in range(repeats + 1):
        for compiled in times:
            lstm.compiled = compiled
            seconds, gradients[compiled] = steps(lstm, x, EACH)
            times[compiled] += seconds if turn else []
    for own, torchs in zip(gradients[True], gradients[False], strict=True):
        if (own - torchs).abs().max() > 1e-5 * torchs.abs().max():
            raise SystemExit(f"H={hidden}: gradients differ")
    torchs, own = (statistics.median(times[compiled]) for compiled in (False, True))
    what = f"compiled kernel ÷ torch's, speed, H={hidden}, I={features}, {threads} thread{'s' * (threads > 1)}"
    return row(what, torchs / own, 1.0, {"torch's, ms": 1e3 * torchs, "compiled, ms": 1e3 * own}, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    check()
    if (library := glibc()) is not None:
        library.mallopt(M_MMAP_THRESHOLD, LARGEST), library.mallopt(M_TRIM_THRESHOLD, LARGEST)
    torch.set_flush_denormal(True)
    rows = []
    for threads in (1, 2):
        for hidden, features in SIZES:
            rows.append(compared(hidden, features, threads, options.repeats))
            print(f"{rows[-1]['row']}: {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    finish(rows)


if __name__ == "__main__":
    main()
