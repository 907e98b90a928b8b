"""The batch size that fits, or that is fastest, for a config."""

import copy
import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from lstmopt.data.batch import Batch, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.loaders.resident import Resident
from lstmopt.results import forget_peak_memory, peak_memory_mb
from lstmopt.tune.batch_size_search import Trial, best, even, fastest, largest
from lstmopt.tune.short_run import short_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Mode = Literal["fastest", "largest"]
WARM_UP, TIMED = 3, 9  # batches of a trial
VERIFIED = 8  # optimizer steps with the longest sequences
PART_OF_MEMORY = 0.8  # of what is free in main memory
LARGE = 64  # sequences from which on memory grows in proportion
LEAST_BATCHES = 10  # in an epoch, where speed counts
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class FoundBatchSize:
    """What the trials gave.

    Attributes:
        batch_size: the size.
        trials: those that fitted, in the order of their sizes.
        failed: sizes that did not fit.
        seconds: that it took.
    """

    batch_size: int
    trials: list[Trial]
    failed: list[int]
    seconds: float


class _Clock(pl.Callback):
    """When batches end."""

    def __init__(self, batches: int) -> None:
        self.batches, self.ends = batches, [0.0]
        self.samples: list[int] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.ends = [time.perf_counter()]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        self.ends.append(time.perf_counter())
        self.samples.append(len(batch.x))
        if len(self.samples) >= self.batches:
            trainer.should_stop = True

    def samples_per_second(self) -> float:
        """Median over the batches, the first ones left out where there are enough."""
        speeds = [n / (b - a) for n, a, b in zip(self.samples, self.ends, self.ends[1:], strict=False)]
        speeds = sorted(speeds[WARM_UP:] or speeds[-1:])
        return speeds[len(speeds) // 2]


class _One:
    """A loader of one batch; a list would be several loaders to Lightning."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch])

    def __len__(self) -> int:
        return 1


class _Longest(Resident):
    """Another loader's way, but every batch holds the longest sequences."""

    def __init__(self, loader: Resident) -> None:
        self.loader = loader

    def place(self, split: Split, device: torch.device) -> Split:
        return self.loader.place(split, device)

    def batches(self, split: Split, batch_size: int, shuffle: bool, seed: int) -> Any:
        lengths = getattr(split, "lengths", None)
        if lengths is None:
            return self.loader.batches(split, batch_size, shuffle, seed)
        return _One(split.batch(lengths.argsort(descending=True)[:batch_size]))


class BatchSizeFinder:
    """Try batch sizes with the model, optimizer, clipping, precision and memory option of a config.

    On a GPU a size fits if its steps run. In main memory, where too large a size would take the machine down, it is
    tried only if the memory that smaller ones took says that it needs less than 80 % of what is free.

    Where the Trainer takes fractions of the parts, no size is tried with which they would be less than a batch. The
    trials themselves take whole batches.

    Args:
        cfg: the composed config; it is not changed.
        mode: `fastest`: double until a sample takes less than 10 % less time; `largest`: double, then halve, until the
            largest that fits is known to a 16th, less a margin of a tenth. Both are tried at last for several steps
            with the longest sequences.

    Raises:
        ConfigError: not even one sequence fits.
        Interrupted: a signal came.
    """

    def __init__(self, cfg: DictConfig, mode: Mode = "fastest") -> None:
        self.cfg, self.mode = copy.deepcopy(cfg), mode
        self.cfg.data.batch_size = 1
        limits = {part: cfg.trainer[f"limit_{part}_batches"] for part in ("train", "val", "test")}
        self.fractions = {part: n for part, n in limits.items() if isinstance(n, float) and 0 < n < 1}
        if "train" in self.fractions:
            self.cfg.trainer.limit_train_batches = None
        self.datamodule: DataModule | None = None
        self.failed: list[int] = []
        self._memory: list[tuple[int, float]] = []  # batch size, MB

    def find(self) -> FoundBatchSize:
        """The size and how it was found."""
        began = time.monotonic()
        if self.mode == "largest":
            size, trials = largest(lambda n: self.attempt(n, longest=True, batches=2), self.most())
        else:
            trials = fastest(self.attempt, self.most(LEAST_BATCHES))
            size = best(trials).batch_size
        while size > 1 and self.attempt(size, longest=True, batches=VERIFIED) is None:
            size = even(int(0.9 * size))
        return FoundBatchSize(
            size, sorted(trials, key=lambda trial: trial.batch_size), sorted(self.failed), time.monotonic() - began
        )

    def most(self, batches: int = 1) -> int:
        """Read the data; the largest size with which an epoch has so many batches, if there is one."""
        self._run(1, _Clock(1), 1)
        assert self.datamodule is not None
        count = len(self.datamodule.splits["train"])
        if batches > 1:
            count = int(count * self.fractions.get("train", 1)) // batches
        most = [largest_size(len(self.datamodule.splits[part]), n) for part, n in self.fractions.items()]
        return max(min([count, *most]), 1)

    def attempt(self, batch_size: int, longest: bool = False, batches: int = WARM_UP + TIMED) -> Trial | None:
        """Train on some batches; None where they do not fit."""
        clear()
        if not torch.cuda.is_initialized() and self.foreseen_mb(batch_size) > PART_OF_MEMORY * free_memory_mb():
            self.failed.append(batch_size)
            return None
        clock = _Clock(batches)
        forget_peak_memory()
        before = peak_memory_mb()
        try:
            self._run(batch_size, clock, batches, longest)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.failed.append(batch_size)
            return None
        finally:
            clear()
        memory = max(peak_memory_mb() - before, 0.0)
        self._memory.append((batch_size, memory))
        return Trial(batch_size, clock.samples_per_second(), memory)

    def foreseen_mb(self, batch_size: int) -> float:
        """The memory that a size will take, in MB: the most per sequence so far; small batches tell too much."""
        told = [memory / size for size, memory in self._memory if size >= LARGE]
        return batch_size * max(told or [memory / size for size, memory in self._memory] or [0.0])

    def _run(self, batch_size: int, clock: _Clock, batches: int, longest: bool = False) -> None:
        datamodule = self.datamodule
        if datamodule is None:
            self.datamodule = short_run(self.cfg, clock, batches, self.cfg.seed)
            return
        loader, datamodule.batch_size = datamodule.loader, batch_size
        datamodule.loader = _Longest(loader) if longest else loader
        try:
            short_run(self.cfg, clock, batches, self.cfg.seed, datamodule)
        finally:
            datamodule.loader = loader


def largest_size(count: int, fraction: float) -> int:
    """The largest batch size with which a fraction of a part's batches is at least one of them; 1 where there is none.

    Args:
        count: sequences of the part.
        fraction: between 0 and 1, without them.
    """
    needed = math.ceil(1 / fraction)
    needed += int(needed * fraction) < 1  # 49 * (1 / 49) is less
    return max((count - 1) // (needed - 1), 1)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of the GPU or the machine, was too small."""
    words = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def free_memory_mb() -> float:
    """Main memory that this process may still take, in MB: the machine's, or what its container leaves."""
    free = float(psutil.virtual_memory().available)
    try:
        most = (CGROUP / "memory.max").read_text().strip()
        if most != "max":
            free = min(free, int(most) - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no container, or one of another kind
    return free / 1e6


def clear() -> None:
    """Give back what a trial took."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def picture(found: FoundBatchSize) -> "Figure":
    """Throughput and memory by batch size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    sizes = [trial.batch_size for trial in found.trials]
    axes.plot(sizes, [trial.samples_per_second for trial in found.trials], "o-", color="tab:blue")
    axes.set(xlabel="batch size", title=f"data.batch_size={found.batch_size}")
    axes.set_xscale("log", base=2)
    axes.set_ylabel("samples per second", color="tab:blue")
    axes.axvline(found.batch_size, color="tab:red", ls="--")
    for size in found.failed:
        axes.axvline(size, color="tab:gray", ls=":")
    right = axes.twinx()
    right.plot(sizes, [trial.memory_mb for trial in found.trials], "s-", color="tab:orange")
    right.set_ylabel("memory of the steps, MB (dotted: did not fit)", color="tab:orange")
    return figure
