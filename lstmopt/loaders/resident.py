"""The data in memory."""

from typing import TYPE_CHECKING

import torch

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.batch_loader import BatchLoader

if TYPE_CHECKING:
    from lstmopt.data.datamodule import DataModule


class Resident:
    """Hold the arrays in main memory, and read whole batches in the training process.

    Windows are read out of the one series that they share; nothing is copied beforehand. The other loader options are
    subclasses: the same batches in the same order, held or read in another way.
    """

    def load(self, datamodule: "DataModule") -> tuple[DataSpec, dict[str, Split]]:
        """The data set's parts."""
        return datamodule.load()

    target = "cpu"

    def place(self, split: Split, device: torch.device) -> Split:
        """A part where it is read from, for a training on `device`."""
        self.target = device.type
        return split

    def batches(self, split: Split, batch_size: int, shuffle: bool, seed: int) -> BatchLoader:
        """The loader of a part that was placed."""
        here = getattr(split, "device", torch.device("cpu"))
        return BatchLoader(split, batch_size, shuffle, seed, pin_memory=self.pinned(here), device=here)

    def pinned(self, here: torch.device) -> bool:
        """Whether batches go from main memory to a GPU, which copies pinned ones while the host goes on."""
        return self.target == "cuda" and here.type == "cpu"
