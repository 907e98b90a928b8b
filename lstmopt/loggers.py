"""TensorBoard curves that lie in the run folder itself."""

from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger


class RunTensorBoard(TensorBoardLogger):
    """Event files in `save_dir`, one folder per run.

    Args:
        save_dir: the run folder.
        purge_step: TensorBoard forgets what an interrupted run logged from this step on.
    """

    def __init__(self, save_dir: str, purge_step: int | None = None) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge_step)

    def save(self) -> None:
        """Nothing: the settings are in `.hydra/`."""

    def log_result(self, settings: dict[str, Any], metrics: dict[str, float]) -> None:
        """Make the run a row of the HPARAMS tab; the metrics are tags of curves that exist."""
        from torch.utils.tensorboard.summary import hparams

        writer = self.experiment._get_file_writer()
        for summary in hparams(settings, metrics):
            writer.add_summary(summary)
        self.experiment.flush()
