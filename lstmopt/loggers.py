"""Curves that lie in the run folder itself; where they cannot be written, the run goes on without them."""

import csv
import os
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
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


def _rows(path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of a `metrics.csv` before this step; one that was cut off as it was written is left out."""
    if not path.is_file():
        return []
    with path.open(newline="", errors="replace") as file:
        whole = [line for line in file if line.endswith("\n")]
    rows = [{name: value for name, value in row.items() if name and value} for row in csv.DictReader(whole)]
    return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) < before]


class RunCSV(CSVLogger):
    """`metrics.csv` in `save_dir`. Where it cannot be written, one warning is all.

    Args:
        save_dir: the run folder.
        name: folder in it.
        version: folder in that.
        prefix: of the metrics' names.
        flush_logs_every_n_steps: rows kept in memory.
        purge_step: keep the rows that an interrupted run logged before this step; None keeps none.
    """

    def __init__(
        self,
        save_dir: str,
        name: str = "",
        version: str = "",
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
        purge_step: int | None = None,
    ) -> None:
        super().__init__(save_dir, name, version, prefix, flush_logs_every_n_steps)
        self.guard, self.purge_step = Guard(self.log_dir), purge_step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer of the file, or nobody where its folder cannot be made."""
        if self._experiment is None:
            self.guard(self._go_on)
        return self._experiment or _DummyExperiment()

    def _go_on(self) -> None:
        """Lightning's writer removes the file: write the rows that stay anew."""
        rows = _rows(Path(self.log_dir, "metrics.csv"), self.purge_step or 0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Experiment logs directory")  # says that all is lost
            writer = super().experiment
        writer.metrics = rows
        writer.save()

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Add a row."""
        self.guard(super().log_metrics, metrics, step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace | None = None) -> None:
        """Write `hparams.yaml`."""
        self.guard(super().log_hyperparams, params)

    def save(self) -> None:
        """Write the rows."""
        self.guard(super().save)
