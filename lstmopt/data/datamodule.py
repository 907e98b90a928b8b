"""The common part of all data options: splits in memory, read by whole batches, in a repeatable order."""

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lstmopt.data.batch import Batch, DataSpec, Split


class BatchIndices(Sampler[Tensor]):
    """Batches of sample numbers whose order is a function of (seed, epoch) alone.

    Args:
        n: number of samples.
        batch_size: samples per batch; the last batch may be smaller.
        shuffle: a new permutation every epoch.
        seed: seed of the permutations.
    """

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int) -> None:
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.n, generator=generator)
        else:
            order = torch.arange(self.n)
        skip, self.skip = self.skip, 0
        yield from order.split(self.batch_size)[skip:]


class _WholeBatches(Dataset[Batch]):
    """A split whose samples are batches, asked for by `_Requests`."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, request: bytes) -> Batch:
        return self.split.batch(pickle.loads(request))


class _Requests(Sampler[bytes]):
    """Sample numbers as bytes: a worker that gets a tensor asks back for it, which fails while another one ends."""

    def __init__(self, indices: Any) -> None:
        self.indices = indices

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.indices.set_epoch(epoch)

    def __iter__(self) -> Iterator[bytes]:
        return map(pickle.dumps, self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class BatchLoader(DataLoader[Batch]):
    """A `DataLoader` that fetches whole batches and knows where in the epoch it is.

    The batches already handed out are part of a checkpoint, so that a resumed epoch goes on with the
    batch that would have come next. No global random state is read or advanced.

    Args:
        split: the samples; it may have an order of its own, `indices`.
        batch_size: samples per batch.
        shuffle: a new order every epoch.
        seed: seed of the orders.
        num_workers: processes that read; 0 reads in the training process.
        prefetch_factor: batches that each process reads ahead.
        persistent_workers: keep the processes from epoch to epoch.
        pin_memory: put batches where a GPU copies them from without waiting.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        shuffle: bool,
        seed: int,
        num_workers: int = 0,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory: bool = False,
    ) -> None:
        order = getattr(split, "indices", None)
        self.indices = (
            order(batch_size, shuffle, seed) if order else BatchIndices(len(split), batch_size, shuffle, seed)
        )
        self._handed_out = 0
        super().__init__(
            _WholeBatches(split),
            sampler=_Requests(self.indices),
            batch_size=None,
            generator=torch.Generator().manual_seed(seed),
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory=pin_memory,
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._handed_out = self.indices.skip
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed to the trainer in this epoch."""
        return {"batches": self._handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the saved number of batches; a finished epoch starts the next one."""
        self.indices.skip = state["batches"] % len(self.indices)


class DataModule(pl.LightningDataModule):
    """A data set with its train, validation and test parts. A data option is a subclass with `load`.

    Args:
        batch_size: sequences per batch, all three parts.
        seed: seed of the batch order (and of generated data).

    Attributes:
        loader: makes the loader of a part from (split, batch_size, shuffle, seed).
        cut: puts the training part, with its batch size, into pieces of another order.
    """

    loader: Callable[..., BatchLoader] = BatchLoader
    cut: Callable[[Any, int], Any] | None = None

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.spec: DataSpec
        self.splits: dict[str, Split] = {}

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read and check the data; the parts are `train`, `val` and `test`.

        Raises:
            DataError: a file is missing or not usable.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load once; called by `build` before the model is made, and by Lightning."""
        if not self.splits:
            self.spec, self.splits = self.load()

    def _loader(self, part: str) -> BatchLoader:
        return self.loader(self.splits[part], self.batch_size, shuffle=False, seed=self.seed)

    def train_dataloader(self) -> BatchLoader:
        """Batches in an order that is a function of (seed, epoch)."""
        split = self.splits["train"]
        split = self.cut(split, self.batch_size) if self.cut else split
        return self.loader(split, self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> BatchLoader:
        """Batches in order."""
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        """Batches in order."""
        return self._loader("test")
