"""The wall time of every hook."""

import pytorch_lightning as pl
from pytorch_lightning.profilers import SimpleProfiler

from lstmopt.profilers import report


class SimpleProfile(pl.Callback):
    """Lightning's `SimpleProfiler` over the whole run: how often everything was called and what it took.

    Leaves `profile/summary.txt`, and the same text on TensorBoard; a run that breaks is told as far as it went.

    Args:
        dirpath: folder; None is `profile` in the run folder.
    """

    def __init__(self, dirpath: str | None = None) -> None:
        self.dirpath = dirpath

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Put Lightning's profiler in place."""
        if stage == "fit":
            trainer.profiler = SimpleProfiler()  # type: ignore[attr-defined]
            trainer.profiler.setup(stage="fit")  # type: ignore[attr-defined]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the table."""
        report.write(trainer, self.dirpath, "summary.txt", trainer.profiler.summary(), "profile")  # type: ignore[attr-defined]

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Tell what is known so far."""
        if trainer.global_step:
            self.on_train_end(trainer, pl_module)
