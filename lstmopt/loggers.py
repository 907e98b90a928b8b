"""Curves that lie in the run folder itself; where they cannot be written, the run goes on without them."""

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from lightning_fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger


class Guard:
    """Calls what writes logs. The first `OSError` (disk full, folder gone) is told in one line and ends the logging.

    Args:
        folder: where the logs lie.

    Attributes:
        off: nothing is called any more.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.off = os.path.normpath(folder), False

    def __call__(self, function: Callable[..., Any], *args: Any) -> bool:
        """Whether it was called and did its work."""
        if self.off:
            return False
        try:
            function(*args)
        except OSError as error:
            if not self.off:
                self.off = True
                reason = error.strerror or error
                print(f"warning: logging is off, training goes on: {reason} ({self.folder})", file=sys.stderr)
            return False
        return True


class RunTensorBoard(TensorBoardLogger):
    """Event files in `save_dir`, one folder per run. Where they cannot be written, one warning is all.

    Args:
        save_dir: the run folder.
        purge_step: TensorBoard forgets what an interrupted run logged from this step on.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge_step)
        self.guard = Guard(self.log_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """torch's `SummaryWriter`, behind the guard."""
        if self._experiment is None:
            from lstmopt.event_files import EventFiles  # takes a while to import

            self._experiment = EventFiles(self.guard, self.log_dir, **self._kwargs)
        return self._experiment

    def save(self) -> None:
        """Nothing: the settings are in `.hydra/`."""

    def log_result(self, settings: dict[str, Any], metrics: dict[str, float]) -> None:
        """Make the run a row of the HPARAMS tab; the metrics are tags of curves that exist."""
        from torch.utils.tensorboard.summary import hparams

        writer = self.experiment._get_file_writer()
        for summary in hparams(settings, metrics):
            writer.add_summary(summary)
        self.experiment.close()  # the thread that writes would live as long as the process


class RunCSV(CSVLogger):
    """`metrics.csv` in `save_dir`. Where it cannot be written, one warning is all.

    Args:
        save_dir: the run folder.
        name: folder in it.
        version: folder in that.
        prefix: of the metrics' names.
        flush_logs_every_n_steps: rows kept in memory.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = "",
        version: str = "",
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        super().__init__(save_dir, name, version, prefix, flush_logs_every_n_steps)
        self.guard = Guard(self.log_dir)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer of the file, or nobody where its folder cannot be made."""
        if self._experiment is None:
            self.guard(lambda: super(RunCSV, self).experiment)
        return self._experiment or _DummyExperiment()

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row."""
        self.guard(super().log_metrics, metrics, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None) -> None:
        """Write `hparams.yaml`."""
        self.guard(super().log_hyperparams, params)

    def save(self) -> None:
        """Write the rows."""
        self.guard(super().save)
