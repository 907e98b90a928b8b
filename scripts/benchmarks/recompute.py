"""Memory and time of `memory=recompute` beside the plain pass, on one thread.

    python scripts/benchmarks/recompute.py [--steps 1024] [--hidden 512] [--batch 16] [--chunk 64] [--repeats 7]

Time: both in one process, in turns, medians. Activations: the bytes that autograd holds when the backward pass begins,
and the growth of the resident memory at its peak, each in a process of its own.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time

import psutil
import torch
from in_turns import finish, row

from lstmopt.callbacks.recompute import loss_in_chunks
from lstmopt.data.batch import Batch, DataSpec
from lstmopt.models.lstm import LSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.tagging import Tagging

FEATURES, CLASSES = 8, 50


def make(a):
    torch.manual_seed(0)
    spec = DataSpec("tagging", FEATURES, CLASSES)
    module = LSTMModule(Tagging(spec), LSTM(FEATURES, a.hidden), torch.optim.Adam)
    batch = Batch(torch.randn(a.batch, a.steps, FEATURES), torch.randint(CLASSES, (a.batch, a.steps)))
    return module, batch


def one_pass(module, batch, chunk):
    loss = loss_in_chunks(module, chunk, batch) if chunk else module.training_loss(batch)
    loss.backward()
    module.zero_grad()


def saved_bytes(module, batch, chunk):
    """Distinct storages that autograd keeps between forward and backward, without weights and inputs."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    own |= {batch.x.untyped_storage().data_ptr(), batch.y.untyped_storage().data_ptr()}
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_in_chunks(module, chunk, batch) if chunk else module.training_loss(batch)
    held = sum(size for pointer, size in kept.items() if pointer not in own)
    del loss
    return held


def in_process(a):
    """Growth of the peak memory over that before the pass, in MB, measured after a small pass of the same kind."""
    module, batch = make(a)
    small = Batch(batch.x[:, : 2 * (a.chunk or 32)], batch.y[:, : 2 * (a.chunk or 32)])
    one_pass(module, small, a.chunk)
    before = psutil.Process().memory_info().rss
    one_pass(module, batch, a.chunk)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6)


def main():
    parser = argparse.ArgumentParser()
    for name, value in {"steps": 1024, "hidden": 512, "batch": 16, "chunk": 64, "repeats": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.alone:
        in_process(a)
        return
    times = {0: [], a.chunk: []}
    shape = ["--steps", a.steps, "--hidden", a.hidden, "--batch", a.batch]
    growth = {}  # first: a process inherits the peak of the one that starts it
    for chunk in times:
        command = [sys.executable, __file__, "--alone", *shape, "--chunk", chunk]
        growth[chunk] = float(subprocess.run(map(str, command), check=True, capture_output=True, text=True).stdout)
    module, batch = make(a)
    for repeat in range(a.repeats + 1):
        for chunk in times:
            began = time.perf_counter()
            one_pass(module, batch, chunk)
            if repeat:  # the first is a warm-up
                times[chunk].append(time.perf_counter() - began)
        print(f"{repeat}/{a.repeats}", file=sys.stderr, flush=True)
    plain, recomputed = (statistics.median(times[chunk]) for chunk in times)
    pairs = [b / t for t, b in zip(times[0], times[a.chunk], strict=True)]
    # what is live while one chunk's backward runs: the kept states, and the activations of that chunk
    chunk_batch = Batch(batch.x[:, : a.chunk], batch.y[:, : a.chunk])
    states = 2 * (a.steps // a.chunk) * a.batch * a.hidden * 4
    kept = {0: saved_bytes(module, batch, 0), a.chunk: states + saved_bytes(module, chunk_batch, 0)}
    print(f"T={a.steps} H={a.hidden} B={a.batch}, chunks of {a.chunk}, one thread, {a.repeats} repeats in turns\n")
    print("| | plain | recomputed | ratio |\n|---|---|---|---|")
    print(
        f"| seconds | {plain:.3f} | {recomputed:.3f} | {recomputed / plain:.2f} ({min(pairs):.2f}-{max(pairs):.2f}) |"
    )
    megabytes = [kept[chunk] / 1e6 for chunk in times]
    print(f"| activations, MB | {megabytes[0]:.1f} | {megabytes[1]:.1f} | {megabytes[1] / megabytes[0]:.3f} |")
    print(f"| peak memory growth, MB | {growth[0]:.1f} | {growth[a.chunk]:.1f} | {growth[a.chunk] / growth[0]:.3f} |")
    activations = {"plain, MB": megabytes[0], "recompute, MB": megabytes[1]}
    seconds = {"plain, s": plain, "recompute, s": recomputed}
    finish(
        [
            row("recompute, activations ÷ plain", megabytes[1] / megabytes[0], 0.08, activations, 1, "lower"),
            row("recompute, time ÷ plain", recomputed / plain, 1.30, seconds, a.repeats, "lower"),
        ]
    )


if __name__ == "__main__":
    main()
