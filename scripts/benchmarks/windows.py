"""Batches of windows per second, and the memory they take.

    python scripts/benchmarks/windows.py [--repeats 5]

Windows of 96 + 24 rows, 7 channels, 64 per batch, shuffled, out of a series of 17,420 rows; one thread. `resident` is
lstmopt's loader. Beside it: `DataLoader` over a `Dataset` that slices the same windows out of the same tensor, with 0,
1 and 2 workers; and one bare `index_select` per batch of the same rows out of the series, the row numbers made
beforehand.
Memory: bytes that the three parts and a pass over the loader hold beside the series and the batch.
"""

import argparse
import time
import tracemalloc

import torch
from in_turns import finish, in_turns, row
from torch.utils.data import DataLoader, Dataset

from lstmopt.data.splits import Windows
from lstmopt.loaders.resident import Resident

ROWS, CHANNELS, INPUT, HORIZON, BATCH = 17_420, 7, 96, 24, 64


class Slices(Dataset):
    def __init__(self, series):
        self.series = series

    def __len__(self):
        return len(self.series) - INPUT - HORIZON + 1

    def __getitem__(self, index):
        return self.series[index : index + INPUT], self.series[index + INPUT : index + INPUT + HORIZON]


def per_second(batches):
    began = time.perf_counter()
    count = sum(1 for _ in batches)
    return count / (time.perf_counter() - began)


def memory(series):
    """Bytes that a data set of three parts holds in the middle of a pass, ÷ the bytes of its series."""
    cuts = [0, int(len(series) * 0.7), int(len(series) * 0.85), len(series)]
    ranges = [range(max(a - INPUT, 0), b - INPUT - HORIZON + 1) for a, b in zip(cuts, cuts[1:], strict=False)]

    def pass_begun():
        parts = [Windows(series, [numbers], INPUT, HORIZON, list(range(CHANNELS))) for numbers in ranges]
        loader = iter(Resident().batches(parts[0], BATCH, True, 0))
        next(loader)
        return parts, loader

    pass_begun()  # what is made once in a process is none of the data set's
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    parts, loader = pass_begun()
    objects = tracemalloc.get_traced_memory()[0] - before  # the drawn sample numbers, an array of numpy, among them
    tracemalloc.stop()
    # tensors are not traced: every one that is not the series
    held = {id(v): v for part in parts for v in vars(part).values() if isinstance(v, torch.Tensor)}
    tensors = sum(v.nbytes for v in held.values() if v.untyped_storage().data_ptr() != series.data_ptr())
    loader.close()
    return (series.nbytes + objects + tensors) / series.nbytes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    series = torch.randn(ROWS, CHANNELS, generator=torch.Generator().manual_seed(0))
    count = ROWS - INPUT - HORIZON + 1
    windows = Windows(series, [range(count)], INPUT, HORIZON, list(range(CHANNELS)))
    resident = Resident().batches(windows, BATCH, True, 0)
    offsets = torch.arange(INPUT + HORIZON)
    rows = [(index[:, None] + offsets).flatten() for index in torch.randperm(count).split(BATCH)]

    def dataset(workers):
        loader = DataLoader(Slices(series), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        list(loader)  # the workers are there
        return lambda: per_second(loader)

    contestants = {
        "resident": lambda: per_second(resident),
        "index_select": lambda: per_second(series.index_select(0, index) for index in rows),
        **{f"DataLoader, {workers} workers": dataset(workers) for workers in (0, 1, 2)},
    }
    found = in_turns(contestants, options.repeats)
    best = max(value for name, value in found.items() if name.startswith("DataLoader"))
    medians = {f"{name}, batches/s": value for name, value in found.items()}
    share = memory(series)
    finish(
        [
            row("windows, resident ÷ best DataLoader", found["resident"] / best, 5, medians, options.repeats),
            row(
                "windows, resident ÷ index_select",
                found["resident"] / found["index_select"],
                0.8,
                medians,
                options.repeats,
            ),
            row("memory of windows ÷ of the series", share, 1.1, {"series, bytes": series.nbytes}, 1, "lower"),
        ]
    )


if __name__ == "__main__":
    main()
