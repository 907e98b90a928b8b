"""The common part of all data options: splits in memory, read by whole batches, in a repeatable order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.batch_loader import BatchLoader
from lstmopt.errors import ConfigError
from lstmopt.loaders.resident import Resident


class DataModule(pl.LightningDataModule):
    """A data set with its train, validation and test parts. A data option is a subclass with `load`.

    Args:
        batch_size: sequences per batch and process, all three parts.
        seed: seed of the batch order (and of generated data).

    Attributes:
        loader: how the data are held, and the batches read.
        cut: puts the training part, with its batch size, into pieces of another order.
    """

    cut: Callable[[Any, int], Any] | None = None

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.loader = Resident()
        self.spec: DataSpec
        self.splits: dict[str, Split] = {}

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read and check the data; the parts are `train`, `val` and `test`.

        Raises:
            DataError: a file is missing or not usable.
        """
        raise NotImplementedError

    def files(self) -> list[Path] | None:
        """The files that `load` reads, fetched where they must be; None where that is not known."""
        return None

    def setup(self, stage: str | None = None) -> None:
        """Load once; called by `build` before the model is made, and by Lightning.

        Raises:
            ConfigError: see `check_limits`.
        """
        if not self.splits:
            self.spec, self.splits = self.loader.load(self)
        if stage == "fit" and self.trainer:
            self.check_limits(self.trainer)

    def check_limits(self, trainer: pl.Trainer) -> None:
        """Compare what the Trainer takes of each part with the number of its batches.

        Raises:
            ConfigError: it is less than one, or a validation is due after more; Lightning would say so in the middle of
                a run, or after it.
        """
        for part in self.splits:
            cuts = part == "train" and any(getattr(callback, "cuts", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]
            if cuts and self.cut is None:
                continue  # the callback asks again, when it is known how it cuts
            if part == "test" and not trainer.limit_val_batches:
                continue  # a run that looks for a setting, and is not tested
            size = self.batch_size * trainer.world_size
            there = -(-len(self.splits[part]) // size)
            if cuts and self.cut:
                there = len(self.cut(self.splits[part], size).indices(size, False, self.seed))
            limit = getattr(trainer, f"limit_{part}_batches")
            taken = min(there, limit) if isinstance(limit, int) else int(there * limit)
            if limit and not taken:
                raise ConfigError(
                    f"trainer.limit_{part}_batches={limit} is less than one of {there} batches",
                    f"type trainer.limit_{part}_batches=1, a number of batches, or a larger part",
                )
            interval = getattr(trainer, "val_check_interval", None)  # Lightning has none where it is a time
            validates = trainer.limit_val_batches and trainer.check_val_every_n_epoch
            if part == "train" and validates and isinstance(interval, int) and interval > taken:
                on = interval <= taken * (trainer.max_epochs or 0)
                raise ConfigError(
                    f"trainer.val_check_interval={interval} is more than the {taken} batches of an epoch",
                    f"type trainer.val_check_interval={taken}"
                    + (", or trainer.check_val_every_n_epoch=null to count on" if on else ""),
                )

    def _loader(self, part: str, shuffle: bool) -> BatchLoader:
        split = self.loader.place(self.splits[part], self._device())
        if self.cut and part == "train":
            split = self.cut(split, self.batch_size)
        world_size = self.trainer.world_size if self.trainer else 1
        loader = self.loader.batches(split, self.batch_size * world_size, shuffle, self.seed)
        return loader.share(self.trainer.global_rank, world_size, part == "train") if world_size > 1 else loader  # type: ignore[union-attr]

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def train_dataloader(self) -> BatchLoader:
        """Batches in an order that is a function of (seed, epoch)."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> BatchLoader:
        """Batches in order."""
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> BatchLoader:
        """Batches in order."""
        return self._loader("test", shuffle=False)
