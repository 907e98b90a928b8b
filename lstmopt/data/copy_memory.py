"""The copy task, a test of exact memory."""

from pathlib import Path

import torch
from torch.nn import functional as F

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences

SYMBOLS, COPIED = 8, 10


class CopyMemory(DataModule):
    """Ten symbols, a long silence, a signal; then the ten symbols have to be told, in order.

    Of T = delay + 20 steps the first ten hold symbols 1 to 8 and the step before the last ten the signal 9, one-hot;
    the labels are 0 until the last ten steps.

    Args:
        batch_size: sequences per batch.
        seed: seed of the sequences and of the batch order.
        delay: silent steps between symbols and recall.
        n_train: training sequences; a tenth as many validate, and as many test.

    Reference: Hochreiter & Schmidhuber 1997; in this form Arjovsky, Shah & Bengio 2016.
    """

    def __init__(self, batch_size: int, seed: int, delay: int, n_train: int) -> None:
        super().__init__(batch_size, seed)
        self.delay, self.n_train = delay, n_train

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Draw the sequences."""
        generator = torch.Generator().manual_seed(self.seed)
        splits: dict[str, Split] = {}
        for part, count in (("train", self.n_train), ("val", self.n_train // 10), ("test", self.n_train // 10)):
            symbols = torch.randint(1, SYMBOLS + 1, (max(count, 1), COPIED), generator=generator)
            tokens = torch.zeros(len(symbols), self.delay + 2 * COPIED, dtype=torch.int64)
            tokens[:, :COPIED] = symbols
            tokens[:, -COPIED - 1] = SYMBOLS + 1
            labels = torch.zeros_like(tokens)
            labels[:, -COPIED:] = symbols
            splits[part] = Sequences(F.one_hot(tokens, SYMBOLS + 2).float(), labels, per_step=True)
        names = ["blank", *(str(symbol) for symbol in range(1, SYMBOLS + 1))]
        return DataSpec("tagging", SYMBOLS + 2, SYMBOLS + 1, class_names=names), splits
