"""Sequences of unequal lengths: length buckets and padded kernels, beside PackedSequence.

    python scripts/benchmarks/ragged.py [--repeats 5]

An epoch is 2,048 sequences of 1 to L = 100 steps (uniform) or 256 of L = 1000, in batches of 64, forward and backward,
8 features, 64 units, one thread. `ours` reads them as training does (`Sequences` in its `LengthBuckets`, `LSTM` on the
compiled kernel where there is a compiler);
PackedSequence reads random batches, or the very batches that `ours` reads. First the outputs, last states and gradients
of a batch are compared, to 1e-5 of the largest value of each. Two directions of L = 1000 are compared only: packed they
take minutes an epoch. Besides, the first epoch of a fresh process over its third, of 8,192 (2,048) sequences, in three
times as many processes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from in_turns import finish, in_turns, row
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstmopt.data.batch_indices import BatchIndices
from lstmopt.data.batch_loader import BatchLoader
from lstmopt.data.splits import Sequences
from lstmopt.kernels.build import Unavailable
from lstmopt.kernels.lstm_cpu import check
from lstmopt.models.lstm import LSTM

BATCH, FEATURES, HIDDEN = 64, 8, 64
BARS = {100: 3.3, 1000: 30.0}  # by L
COUNTS, FRESH_COUNTS = {100: 2048, 1000: 256}, {100: 8192, 1000: 2048}


def sequences(longest, count):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator)
    x = torch.randn(count, longest, FEATURES, generator=generator)
    x[torch.arange(longest) >= lengths[:, None]] = 0.0
    return Sequences(x, torch.zeros(count), lengths)


def as_trained(model):
    """With the compiled kernel, which `callbacks.compiled_kernel` puts in place."""
    try:
        check()
        model.lstm.compiled = True
    except Unavailable as reason:
        print(f"no compiled kernel: {reason}", file=sys.stderr)
    return model


def ours(model, x, lengths):
    out, state = model(x, lengths)
    return out, *state


def packed(model, x, lengths):
    out, state = nn.LSTM.forward(model.lstm, pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    return pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])[0], *state


def epoch(model, run, batches):
    """Seconds of forward and backward passes over all batches, reading them included."""
    began = time.perf_counter()
    for batch in batches:
        model.zero_grad()
        run(model, batch.x, batch.lengths)[0].sum().backward()
    return time.perf_counter() - began


def difference(model, batch):
    """The largest difference of outputs, last states and gradients, over the largest value of each.

    The loss has positive weights: where the gradients of thousands of steps cancel, rounding alone makes 1e-5.
    """
    found = []
    for run in (ours, packed):
        x = batch.x.clone().requires_grad_()
        results = run(model, x, batch.lengths)
        loss = sum((part * torch.linspace(0, 1, part.numel()).view_as(part)).sum() for part in results)
        gradients = torch.autograd.grad(loss, [x, *model.parameters()])
        found.append([part.detach() for part in (*results, *gradients)])
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*found, strict=True))


def beside_packed(longest, bidirectional, repeats):
    torch.manual_seed(0)
    data = sequences(longest, COUNTS[longest])
    model = as_trained(LSTM(FEATURES, HIDDEN, bidirectional=bidirectional))
    buckets = BatchLoader(data, BATCH, shuffle=True, seed=0)
    order = list(BatchIndices(len(data), BATCH, True, 0))
    name = f"unequal lengths, {1 + bidirectional} direction{'s' * bidirectional}, L = {longest}"
    worst = difference(model, next(iter(buckets)))
    print(f"{name}: largest relative difference {worst:.1e}", file=sys.stderr, flush=True)
    if worst > 1e-5:
        raise SystemExit(f"{name}: results differ by {worst:.1e}")
    if bidirectional and longest == max(BARS):
        return []
    epoch(model, ours, buckets)  # the kernels are there
    found = in_turns(
        {
            "ours": lambda: epoch(model, ours, buckets),
            "packed, random batches": lambda: epoch(model, packed, map(data.batch, order)),
            "packed, same batches": lambda: epoch(model, packed, buckets),
        },
        repeats,
    )
    medians = {f"{way}, s": seconds for way, seconds in found.items()}
    return [
        row(f"{name}, speed ours ÷ {way}", found[way] / found["ours"], BARS[longest], medians, repeats)
        for way in list(found)[1:]
    ]


def three_epochs(longest):
    """Seconds of the first three epochs of this process, with a head and an optimizer."""
    torch.manual_seed(0)
    loader = BatchLoader(sequences(longest, FRESH_COUNTS[longest]), BATCH, shuffle=True, seed=0)
    model, head = as_trained(LSTM(FEATURES, HIDDEN, return_sequences=False)), nn.Linear(HIDDEN, 1)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()])
    seconds = []
    for number in range(3):
        loader.indices.set_epoch(number)
        began = time.perf_counter()
        for batch in loader:
            optimizer.zero_grad()
            head(model(batch.x, batch.lengths)[0]).square().mean().backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds


def fresh_process(longest, repeats):
    """The first epoch over the third: what new shapes cost."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, __file__, "--fresh", str(longest)], stdout=subprocess.PIPE, check=True)
        runs.append(json.loads(done.stdout))
        print(f"epochs, L = {longest}: {runs[-1]}", file=sys.stderr, flush=True)
    first, second, third = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
    medians = {"epoch 1, s": first, "epoch 2, s": second, "epoch 3, s": third}
    return row(f"unequal lengths, L = {longest}, epoch 1 ÷ epoch 3", first / third, 1.2, medians, repeats, "lower")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fresh", type=int, help="print the seconds of three epochs of this L, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.fresh:
        print(json.dumps(three_epochs(options.fresh)))
        return
    rows = []
    for longest in BARS:
        rows.append(fresh_process(longest, 3 * options.repeats))  # one epoch differs from the next by a fifth
        for bidirectional in (False, True):
            rows += beside_packed(longest, bidirectional, options.repeats)
    finish(rows)


if __name__ == "__main__":
    main()
