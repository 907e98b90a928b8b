"""The adding problem, a test of long memory."""

from pathlib import Path

import torch

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences


class Adding(DataModule):
    """The sum of the two marked numbers of a sequence; always predicting 1 has a squared error of 1/6.

    A step holds a number, uniform in [0, 1), and a mark, 1 at one step of each half and 0 elsewhere.

    Args:
        batch_size: sequences per batch.
        seed: seed of the sequences and of the batch order.
        sequence_length: steps T.
        n_train: training sequences; a tenth as many validate, and as many test.

    Reference: Hochreiter & Schmidhuber 1997, experiment 4; in this form Le, Jaitly & Hinton 2015.
    """

    def __init__(self, batch_size: int, seed: int, sequence_length: int, n_train: int) -> None:
        super().__init__(batch_size, seed)
        self.sequence_length, self.n_train = sequence_length, n_train

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Draw the sequences."""
        generator = torch.Generator().manual_seed(self.seed)
        half = self.sequence_length // 2
        splits: dict[str, Split] = {}
        for part, count in (("train", self.n_train), ("val", self.n_train // 10), ("test", self.n_train // 10)):
            numbers = torch.rand(max(count, 1), self.sequence_length, generator=generator)
            rows = torch.arange(len(numbers))
            marks = torch.zeros_like(numbers)
            marks[rows, torch.randint(half, rows.shape, generator=generator)] = 1
            marks[rows, torch.randint(half, self.sequence_length, rows.shape, generator=generator)] = 1
            total = (numbers * marks).sum(dim=1)
            splits[part] = Sequences(torch.stack((numbers, marks), dim=2), total[:, None, None])
        return DataSpec("forecasting", 2, 1, season=0, target_names=["sum"]), splits
