"""The common part of all data options: splits in memory, read by whole batches, in a repeatable order."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.batch_loader import BatchLoader
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
        """Load once; called by `build` before the model is made, and by Lightning."""
        if not self.splits:
            self.spec, self.splits = self.loader.load(self)

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
