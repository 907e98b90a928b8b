"""The checkpoint of the best epoch."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Keep `best.ckpt`, the epoch with the best monitored metric.

    Args:
        monitor: the metric, as `val/loss`.
        mode: `min` or `max`.
        dirpath: folder; None is `checkpoints` in the run folder.
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", dirpath: str | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            enable_version_counter=False,
            auto_insert_metric_name=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Settle the folder before Lightning does."""
        self.dirpath = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning's, and the newest score."""
        super().load_state_dict(state_dict)
        self.current_score = state_dict["current_score"]
