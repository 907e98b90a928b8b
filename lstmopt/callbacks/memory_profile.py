"""Where the memory goes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

from lstmopt.profilers import layers, report, summary
from lstmopt.profilers.layers import KeptForBackward
from lstmopt.profilers.phases import PHASES
from lstmopt.profilers.report import Table
from lstmopt.profilers.step_profile import Stage, StepProfile


class MemoryProfile(StepProfile):
    """Look at a few steps and leave `profile/memory.txt`: where the memory goes, and what to change to fit.

    It has parameters, gradients, optimizer state and what is kept for backward of every layer, beside what an LSTM
    needs by its equations; the process's memory at the end of each phase; the operators that allocate most. The same
    text is on TensorBoard. On a GPU `profile/memory.pickle` is added, for https://pytorch.org/memory_viz. A run that is
    shorter, or that breaks, is told as far as it went.

    Args:
        wait: steps before the layers are looked at; the optimizer has its state after the first.
        warmup: steps that warm torch's profiler up.
        active: steps in which allocations are recorded.
        dirpath: folder; None is `profile` in the run folder.
    """

    profile_memory = True

    def __init__(self, wait: int = 3, warmup: int = 1, active: int = 2, dirpath: str | None = None) -> None:
        super().__init__([("wait", wait), ("tensors", 1), ("warmup", warmup), ("record", active)], dirpath)
        self._module: pl.LightningModule | None = None
        self._batch: Any = None
        self._kept: KeptForBackward | None = None
        self._before = 0
        self._memory: dict[str, tuple[int, int]] = {}  # by phase: of the process, allocated on the GPU
        self._layers: tuple[Table, dict[str, int]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What there is before the first step."""
        self._module, self._memory, self._layers = pl_module, {}, None
        self._before = psutil.Process().memory_info().rss
        super().on_train_start(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is there anyway."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._kept is not None:
            self._kept.add_given(batch)
            self._batch = batch

    @contextmanager
    def mark(self, phase: str) -> Iterator[None]:
        """Note the memory at the end of the phase, in one step what the layers keep."""
        kept: AbstractContextManager = super().mark(phase)
        if self._kept is not None and phase == "forward":
            kept = self._kept
        with kept:
            yield
        if self._profile is None:
            before = self._memory.get(phase, (0, 0))
            allocated = torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0
            now = (psutil.Process().memory_info().rss, allocated)
            self._memory[phase] = (max(before[0], now[0]), max(before[1], now[1]))

    def enter(self, stage: Stage | None) -> None:
        """Hooks for one step; on a GPU its history with the recording."""
        if stage == "tensors" and self._module is not None:
            self._kept = KeptForBackward(self._module)
        if stage in ("warmup", "record") and torch.cuda.is_initialized():
            torch.cuda.memory._record_memory_history(max_entries=100_000)

    def leave(self, stage: Stage | None) -> None:
        """Read the layers while the gradients are there, and take the hooks off."""
        if stage == "tensors" and self._kept is not None and self._module is not None:
            self._kept.remove()
            self._layers = layers.layer_table(self._module.trainer, self._module, self._kept)
            self._kept = None
        if stage == "record" and torch.cuda.is_initialized() and self._module is not None:
            folder = report.folder_of(self._module.trainer, self.dirpath)
            torch.cuda.memory._dump_snapshot(str(folder / "memory.pickle"))
            torch.cuda.memory._record_memory_history(enabled=None)

    def write_report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The text."""
        lines, tables = ["The run ended before its layers could be looked at."], []
        if self._layers is not None:
            table, totals = self._layers
            lines = layers.advice(totals, self._batch)
            tables.append(table)
        tables += [self._phases(), summary.memory_table(), summary.allocation_table(self)]
        report.write(trainer, self.dirpath, "memory.txt", report.as_text(lines, tables), "memory")
        self._module = self._batch = None

    def _phases(self) -> Table:
        rows = [("before training", f"{self._before / 1e6:.1f}", "")]
        for phase in PHASES:
            if phase in self._memory:
                process, allocated = self._memory[phase]
                rows.append((phase, f"{process / 1e6:.1f}", f"{allocated / 1e6:.1f}" if allocated else ""))
        note = "Largest of all steps; the process keeps memory that it has used once."
        return Table("Memory at the end of each phase", ("phase", "process MB", "GPU MB"), rows, note)
