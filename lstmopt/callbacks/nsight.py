"""Ranges for NVIDIA Nsight Systems."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch

from lstmopt.profilers.phases import Phases


class Nsight(pl.Callback):
    """Mark `data`, `forward`, `backward`, `clip` and `step` as NVTX ranges, which `nsys` draws above the kernels.

    `scripts/nsys_profile.sh` starts a training under `nsys`. Ranges do not overlap: with a closure optimizer
    (L-BFGS) a step has several of each. Where torch has no CUDA nothing is marked, and a warning says so.
    """

    RANGES = ("data", "forward", "backward", "clip", "step")

    def __init__(self) -> None:
        self._phases: Phases | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to what Lightning calls."""
        try:
            torch.cuda.nvtx.range_push("lstmopt")
            torch.cuda.nvtx.range_pop()
        except RuntimeError:
            warnings.warn("this torch has no CUDA: profiler=nsight marks nothing", stacklevel=2)
            return
        self._phases = Phases(trainer.profiler, self._mark)  # type: ignore[attr-defined]
        self._phases.synchronize = False  # the kernels are to run as they would
        trainer.profiler = self._phases  # type: ignore[attr-defined]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the Trainer's profiler back."""
        if self._phases is not None:
            self._phases.close()
            trainer.profiler = self._phases.inner  # type: ignore[attr-defined]
            self._phases = None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close what is open."""
        self.on_train_end(trainer, pl_module)

    @contextmanager
    def _mark(self, phase: str) -> Iterator[None]:
        if phase not in self.RANGES:
            yield
            return
        torch.cuda.nvtx.range_push(phase)
        try:
            yield
        finally:
            torch.cuda.nvtx.range_pop()
