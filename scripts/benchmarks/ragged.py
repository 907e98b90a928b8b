"""Sequences of unequal lengths: length buckets and padded kernels, against PackedSequence.

    OMP_NUM_THREADS=1 PYTHONPATH=. python scripts/benchmarks/ragged.py --repeats 5

An epoch is 2,048 sequences of 1 to L = 100 steps (uniform) or 256 of L = 1000, in batches of 64, forward and backward,
F = 8, H = 64. Ours reads them as training does (`Sequences` with its `LengthBuckets`, `LSTM`); PackedSequence reads
random batches, or the very batches that ours reads. The three alternate, and medians are compared. Outputs, last states
and gradients of two batches are compared first. Two directions of L = 1000 are only compared: packed they take minutes
an epoch. One more row: the first and the third epoch of a fresh process, of 8,192 (2,048) sequences.

Progress goes to stderr; the last line on stdout is a list of rows in JSON.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lstmopt.data.batch import Batch
from lstmopt.data.batch_indices import BatchIndices
from lstmopt.data.datamodule import BatchLoader
from lstmopt.data.splits import Sequences
from lstmopt.models.lstm import LSTM

BATCH_SIZE, FEATURES, HIDDEN = 64, 8, 64
BARS = {100: 3.3, 1000: 30.0}  # by L
COUNTS, FIRST_COUNTS = {100: 2048, 1000: 256}, {100: 8192, 1000: 2048}
Row = dict[str, object]


def sequences(longest: int, count: int) -> Sequences:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator)
    x = torch.randn(count, longest, FEATURES, generator=generator)
    x[torch.arange(longest) >= lengths[:, None]] = 0.0
    return Sequences(x, torch.zeros(count), lengths)


def ours(model: LSTM, batch: Batch) -> tuple[Tensor, ...]:
    out, state = model(batch.x, batch.lengths)
    return out, *state


def packed(model: LSTM, batch: Batch) -> tuple[Tensor, ...]:
    assert batch.lengths is not None
    x = pack_padded_sequence(batch.x, batch.lengths, batch_first=True, enforce_sorted=False)
    out, state = nn.LSTM.forward(model.lstm, x)
    return pad_packed_sequence(out, batch_first=True, total_length=batch.x.shape[1])[0], *state


def epoch(model: LSTM, run: Callable[[LSTM, Batch], tuple[Tensor, ...]], batches: Iterable[Batch]) -> float:
    """Seconds of forward and backward passes over all batches, reading them included."""
    began = time.perf_counter()
    for batch in batches:
        model.zero_grad()
        run(model, batch)[0].sum().backward()
    return time.perf_counter() - began


def difference(model: LSTM, batches: Iterable[Batch]) -> float:
    """The largest difference of outputs, last states and gradients, relative to the largest value of each.

    The loss has positive weights: where gradients of thousands of steps cancel, rounding alone makes 1e-5.
    """
    worst = 0.0
    for batch in batches:
        found = []
        for run in (ours, packed):
            x = batch.x.clone().requires_grad_()
            results = run(model, batch._replace(x=x))
            loss = sum((part * torch.linspace(0, 1, part.numel()).view_as(part)).sum() for part in results)
            gradients = torch.autograd.grad(loss, [x, *model.parameters()])
            found.append([part.detach() for part in (*results, *gradients)])
        for one, other in zip(*found, strict=True):
            worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp(min=1e-30)))
    return worst


def rows_of(longest: int, bidirectional: bool, repeats: int) -> list[Row]:
    torch.manual_seed(0)
    data, model = sequences(longest, COUNTS[longest]), LSTM(FEATURES, HIDDEN, bidirectional=bidirectional)
    buckets = BatchLoader(data, BATCH_SIZE, shuffle=True, seed=0)
    order = list(BatchIndices(len(data), BATCH_SIZE, True, 0))
    name = f"{'two directions' if bidirectional else 'one direction'}, L={longest}"
    worst = difference(model, islice(buckets, 2))
    print(f"{name}: largest relative difference {worst:.1e}", file=sys.stderr)
    if worst > 1e-5:
        raise SystemExit(f"{name}: results differ by {worst:.1e}")
    if bidirectional and longest == max(BARS):
        return []
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: epoch(model, ours, buckets),
        "packed, random batches": lambda: epoch(model, packed, map(data.batch, order)),
        "packed, same batches": lambda: epoch(model, packed, buckets),
    }
    ways["ours"]()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            seconds[way].append(run())
    medians = {way: median(times) for way, times in seconds.items()}
    print(f"{name}: {medians}", file=sys.stderr)
    return [
        {
            "row": f"unequal lengths, {name}: {way} / ours",
            "ratio": medians[way] / medians["ours"],
            "bar": BARS[longest],
            "better": "higher",
            "medians": {"ours": medians["ours"], way: medians[way]},
            "difference": worst,
            "repeats": repeats,
        }
        for way in list(ways)[1:]
    ]


def three_epochs(longest: int) -> list[float]:
    """Seconds of the first three epochs of this process, with a head and an optimizer."""
    torch.manual_seed(0)
    loader = BatchLoader(sequences(longest, FIRST_COUNTS[longest]), BATCH_SIZE, shuffle=True, seed=0)
    model, head = LSTM(FEATURES, HIDDEN, return_sequences=False), nn.Linear(HIDDEN, 1)
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


def first_epoch(longest: int, repeats: int) -> Row:
    """The first epoch's cost over the third's: what making kernels for new shapes takes."""
    runs = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, __file__, "--epochs-of", str(longest)], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        print(f"epochs of L={longest}: {runs[-1]}", file=sys.stderr)
    medians = {f"epoch {k + 1}": median(run[k] for run in runs) for k in range(3)}
    return {
        "row": f"unequal lengths, L={longest}: first epoch / third",
        "ratio": medians["epoch 1"] / medians["epoch 3"],
        "bar": 1.2,
        "better": "lower",
        "medians": medians,
        "repeats": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs-of", type=int, help="print the seconds of three epochs of this L, and nothing else")
    options = parser.parse_args()
    if options.epochs_of:
        print(json.dumps(three_epochs(options.epochs_of)))
        return
    rows: list[Row] = []
    for longest in BARS:
        rows.append(first_epoch(longest, options.repeats))
        for bidirectional in (False, True):
            rows += rows_of(longest, bidirectional, options.repeats)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
