"""The compiled LSTM kernels beside torch's: forward and backward of a layer.

    python scripts/benchmarks/kernel.py [--repeats 9]

Batches of 64 sequences of 96 steps with few features (and stacked, with as many features as units), a loss of the last
output, with one thread and with two, memory kept from step to step; in float32, and under autocast in bfloat16 where
the CPU has AMX. Both are run in one process in turns, five steps each, after their results were compared.
"""

import argparse
import statistics
import sys
import time

import torch
from in_turns import finish, row

from lstmopt.callbacks.keep_memory import LARGEST, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, glibc
from lstmopt.kernels import lstm_amx, lstm_cpu
from lstmopt.models.padded_lstm import PaddedLSTM

BATCH, STEPS, EACH = 64, 96, 5
SIZES = {
    torch.float32: [(16, 8), (32, 8), (64, 8), (64, 64), (128, 8), (128, 128), (224, 8)],
    torch.bfloat16: [(24, 8), (32, 8), (64, 1), (64, 8), (64, 64), (128, 128), (256, 256), (512, 512)],
}
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}  # of the largest gradient


def steps(lstm, x, dtype, count):
    """Seconds of each of some steps, and the gradients of the last one."""
    times = []
    for _ in range(count):
        lstm.zero_grad()
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out, _ = lstm(x)
        out[:, -1].square().sum().backward()
        times.append(time.perf_counter() - began)
    return times, [weight.grad.clone() for weight in lstm.parameters()]


def compared(dtype, hidden, features, threads, repeats):
    """One row."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    lstm, x = PaddedLSTM(features, hidden, batch_first=True), torch.randn(BATCH, STEPS, features)
    times, gradients = {False: [], True: []}, {}
    for turn in range(repeats + 1):
        for compiled in times:
            lstm.compiled = compiled
            seconds, gradients[compiled] = steps(lstm, x, dtype, EACH)
            times[compiled] += seconds if turn else []
    for own, torchs in zip(gradients[True], gradients[False], strict=True):
        if (own - torchs).abs().max() > CLOSE[dtype] * torchs.abs().max():
            raise SystemExit(f"H={hidden}: gradients differ")
    torchs, own = (statistics.median(times[compiled]) for compiled in (False, True))
    name = str(dtype).removeprefix("torch.")
    what = f"compiled kernel ÷ torch's, speed, {name}, H={hidden}, I={features}, {threads} thread{'s' * (threads > 1)}"
    return row(what, torchs / own, 1.0, {"torch's, ms": 1e3 * torchs, "compiled, ms": 1e3 * own}, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    lstm_cpu.check()
    sizes = SIZES if lstm_amx.here() else {torch.float32: SIZES[torch.float32]}
    if (library := glibc()) is not None:
        library.mallopt(M_MMAP_THRESHOLD, LARGEST), library.mallopt(M_TRIM_THRESHOLD, LARGEST)
    torch.set_flush_denormal(True)
    rows = []
    for dtype, threads, (hidden, features) in [(d, n, size) for d in sizes for n in (1, 2) for size in sizes[d]]:
        rows.append(compared(dtype, hidden, features, threads, options.repeats))
        print(f"{rows[-1]['row']}: {rows[-1]['ratio']:.2f}", file=sys.stderr, flush=True)
    finish(rows)


if __name__ == "__main__":
    main()
