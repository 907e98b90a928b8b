"""What all profiles of single steps have in common."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import PassThroughProfiler

from lstmopt.errors import ConfigError
from lstmopt.flops import BatchFlops, samples
from lstmopt.profilers.phases import Phases
from lstmopt.profilers.recording import MARK, Recording

Stage = Literal["wait", "tensors", "python", "warmup", "record", "time"]


class StepProfile(pl.Callback):
    """Leads a training through stages of a few steps each, looks at every stage in another way, then reports, once.

    In the stages `warmup` and `record` torch's profiler is on. A run that ends or breaks before the stages do is
    reported as far as it went, and torch's profiler is free again.

    Args:
        stages: their names and numbers of steps, in order; those of 0 steps are left out.
        dirpath: folder of what is written; None is `profile` in the run folder.

    Attributes:
        profile_memory: torch's profiler also records what operators allocate.
        recording: what it recorded; None before and after the report.
        phases: the phases of all steps so far.
        batch_sizes: samples in each of them.
    """

    profile_memory = False

    def __init__(self, stages: list[tuple[Stage, int]], dirpath: str | None) -> None:
        for stage, steps in stages:
            if steps < 0 or (stage == "record" and steps < 1):
                raise ConfigError(f"{steps} steps cannot be profiled", "type a number that is not negative")
        self.dirpath = dirpath
        self._stages = stages
        self._of_step: list[Stage] = [stage for stage, steps in stages for _ in range(steps)]
        self._profile: torch.profiler.profile | None = None
        self._stage: Stage | None = None
        self._trainer: pl.Trainer | None = None
        self._flops = BatchFlops()
        self.recording: Recording | None = None
        self.phases = Phases(PassThroughProfiler())
        self.batch_sizes: list[int] = []

    def write_report(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what was seen."""
        raise NotImplementedError

    def mark(self, phase: str) -> AbstractContextManager:
        """What is entered for the length of a phase: in a recording it becomes a range of its own."""
        return torch.profiler.record_function(MARK + phase) if self._profile is not None else nullcontext()

    def enter(self, stage: Stage | None) -> None:
        """A stage begins; None is the end of all."""

    def leave(self, stage: Stage | None) -> None:
        """A stage ends."""

    def steps_of(self, *stages: Stage) -> list[int]:
        """The numbers of the finished steps of these stages."""
        return [k for k, stage in enumerate(self._of_step[: len(self.phases.steps)]) if stage in stages]

    def planned(self, stage: Stage) -> int:
        """How many steps a stage has, if the run is long enough."""
        return self._of_step.count(stage)

    def before(self, stage: Stage) -> int:
        """How many steps there are before it."""
        return self._of_step.index(stage)

    @property
    def flops_per_sample(self) -> float | None:
        """Operations of forward and backward; None before the first batch."""
        return self._flops.per_sample

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to what Lightning calls."""
        self._trainer = trainer
        self.phases = Phases(trainer.profiler, self.mark)  # type: ignore[attr-defined]
        self.phases.step_ended = lambda: self._next(trainer, pl_module)
        trainer.profiler = self.phases  # type: ignore[attr-defined]
        self.recording, self.batch_sizes = None, []
        self._change(self._of_step[0])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the operations of the first batch."""
        if self._trainer is not None:
            self._flops.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep its size."""
        self._flops.stop(batch)
        self.batch_sizes.append(samples(batch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The run ended before the stages did."""
        self._finish(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Tell what is known so far; the next run of this process needs torch's profiler free."""
        self._finish(trainer, pl_module)

    def _next(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._profile is not None:
            self._profile.step()
        done = len(self.phases.steps)
        if done == len(self._of_step):
            self._finish(trainer, pl_module)
        elif self._of_step[done] != self._stage:
            self._change(self._of_step[done])

    def _change(self, stage: Stage | None) -> None:
        profiled = stage in ("warmup", "record")
        if self._profile is not None and not profiled:
            self._stop_recording()
        self.leave(self._stage)
        self._stage = stage
        self.enter(stage)
        if self._profile is None and profiled:
            warmup = self.planned("warmup")
            schedule = torch.profiler.schedule(wait=0, warmup=warmup, active=self.planned("record"), repeat=1)
            self._profile = torch.profiler.profile(
                schedule=schedule, acc_events=True, profile_memory=self.profile_memory
            )
            self._profile.start()
            self.phases.synchronize = False

    def _stop_recording(self) -> None:
        assert self._profile is not None
        profile, self._profile = self._profile, None
        profile.stop()
        self.phases.synchronize = torch.cuda.is_initialized()
        recorded = self.steps_of("record")
        if recorded:
            self.recording = Recording(profile, len(recorded))

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._trainer is None:  # it never began, or all is told
            return
        self._trainer = None
        self._flops.stop()
        self.phases.close()
        self._change(None)
        trainer.profiler = self.phases.inner  # type: ignore[attr-defined]
        self.write_report(trainer, pl_module)
        self.recording = None
