"""Where the time goes."""

import time
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import SimpleProfiler
from torch import Tensor

from lstmopt.errors import ConfigError

PHASES = ("data", "forward", "backward", "optimizer")


class Profiler(pl.Callback):
    """Profile the training and leave `profile/summary.txt`, and the same text on TensorBoard.

    `simple` is Lightning's `SimpleProfiler`: the wall time of every hook, over the whole run. `pytorch` records a few
    steps with torch.profiler: how a step's time is divided, the operators that take most of it, and
    `profile/trace.json.gz` for https://ui.perfetto.dev. A run with fewer steps, or one that is interrupted, is summed
    up as far as it went. Validation is no part of a step.

    Args:
        kind: `simple` or `pytorch`.
        wait: `pytorch`: steps that are not looked at.
        warmup: `pytorch`: steps that warm the profiler up.
        active: `pytorch`: steps that are recorded.
        dirpath: folder; None is `profile` in the run folder.
    """

    def __init__(
        self,
        kind: Literal["simple", "pytorch"] = "pytorch",
        wait: int = 5,
        warmup: int = 2,
        active: int = 5,
        dirpath: str | None = None,
    ) -> None:
        if kind not in ("simple", "pytorch"):
            raise ConfigError(f"profiler kind={kind} is not known", "type simple or pytorch")
        self.kind, self.wait, self.warmup, self.active, self.dirpath = kind, wait, warmup, active, dirpath
        self._profile: torch.profiler.profile | None = None
        self._mark = 0.0
        self._seconds: dict[str, list[float]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """`simple`: put Lightning's profiler in place."""
        if self.kind == "simple" and stage == "fit":
            trainer.profiler = SimpleProfiler()  # type: ignore[attr-defined]
            trainer.profiler.setup(stage="fit")  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """`pytorch`: start to count steps."""
        if self.kind != "pytorch":
            return
        schedule = torch.profiler.schedule(wait=self.wait, warmup=self.warmup, active=self.active, repeat=1)
        self._profile = torch.profiler.profile(schedule=schedule, acc_events=True)
        self._profile.start()
        self._seconds = {phase: [] for phase in PHASES}
        self._mark = time.perf_counter()

    def _lap(self, phase: str) -> None:
        if self._profile is not None:
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # the phase's kernels end in the phase
            now = time.perf_counter()
            self._seconds[phase].append(now - self._mark)
            self._mark = now

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What was between two epochs is not loading."""
        self._mark = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nor is validation."""
        self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch was loaded."""
        self._lap("data")

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """The loss is there."""
        self._lap("forward")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The gradients are there."""
        self._lap("backward")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One step more; after the last recorded one everything is written."""
        if self._profile is None:
            return
        self._lap("optimizer")
        self._profile.step()
        if len(self._seconds["optimizer"]) == self.wait + self.warmup + self.active:
            self._finish(trainer)
        self._mark = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The run ended before the schedule did, or `simple` is complete."""
        if self._profile is not None:
            self._finish(trainer)
        elif self.kind == "simple":
            self._write(trainer, trainer.profiler.summary())  # type: ignore[attr-defined]

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Tell what is known so far; the next run of this process needs torch's profiler free."""
        if self._profile is not None or trainer.global_step:
            self.on_train_end(trainer, pl_module)

    def _finish(self, trainer: pl.Trainer) -> None:
        profile, self._profile = self._profile, None
        assert profile is not None
        profile.stop()
        skipped = self.wait + self.warmup
        steps = len(self._seconds["optimizer"])
        folder = self._folder(trainer)
        recorded = max(min(steps - skipped, self.active), 0)
        if recorded:
            profile.export_chrome_trace(str(folder / "trace.json.gz"))
            averages = profile.key_averages()
            operators = averages.table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40)
        else:
            operators = f"No operators: the run has {steps} steps, and recording begins after {skipped}."
        self._write(trainer, f"{self._shares(max(min(skipped, steps - 1), 0))}\n\n{operators}")

    def _shares(self, first: int) -> str:
        mean = {p: sum(s[first:]) / max(len(s[first:]), 1) for p, s in self._seconds.items()}
        steps = len(self._seconds["optimizer"][first:])
        total = sum(mean.values()) or 1e-9
        lines = [f"{phase:<10} {1e3 * mean[phase]:9.3f} ms {mean[phase] / total:7.1%}" for phase in PHASES]
        return "\n".join((f"A step takes {1e3 * total:.3f} ms under the profiler, mean of {steps} steps:", *lines))

    def _folder(self, trainer: pl.Trainer) -> Path:
        folder = Path(self.dirpath or Path(trainer.default_root_dir) / "profile")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _write(self, trainer: pl.Trainer, text: str) -> None:
        (self._folder(trainer) / "summary.txt").write_text(text + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                indented = "\n".join("    " + line for line in text.splitlines())  # Markdown: as it is
                logger.experiment.add_text("profile", indented, trainer.global_step)
