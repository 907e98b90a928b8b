"""Batches of a split, one after the other."""

import pickle
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lstmopt.data.batch import Batch, Split
from lstmopt.data.batch_indices import BatchIndices
from lstmopt.distributed.shares import Shares


class _WholeBatches(Dataset[Batch]):
    """A split whose samples are batches, asked for by `_Requests`."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, request: bytes) -> Batch:
        index = pickle.loads(request)
        return read(self.split, torch.from_numpy(index) if isinstance(index, np.ndarray) else index)


class _Requests(Sampler[bytes]):
    """Sample numbers as bytes: a worker that gets a tensor asks back for it, which fails while another one ends."""

    def __init__(self, indices: Any) -> None:
        self.indices = indices

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.indices.set_epoch(epoch)

    def __iter__(self) -> Iterator[bytes]:
        return (pickle.dumps(one.numpy() if isinstance(one, Tensor) else one) for one in self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class BatchLoader(DataLoader[Batch]):
    """A `DataLoader` that fetches whole batches and knows where in the epoch it is.

    The batches already handed out are part of a checkpoint, so that a resumed epoch goes on with the
    batch that would have come next. No global random state is read or advanced. Without processes of its own it reads
    the split itself and leaves out torch's machinery.

    Args:
        split: the samples; it may have an order of its own, `indices`.
        batch_size: samples per batch.
        shuffle: a new order every epoch.
        seed: seed of the orders.
        num_workers: processes that read; 0 reads in the training process.
        prefetch_factor: batches that each process reads ahead.
        persistent_workers: keep the processes from epoch to epoch.
        pin_memory: put batches where a GPU copies them from without waiting.
        device: where the split lies.
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
        device: torch.device | str = "cpu",
    ) -> None:
        own_order = getattr(split, "indices", None)
        self.split = split
        self.indices = (
            own_order(batch_size, shuffle, seed)
            if own_order
            else BatchIndices(len(split), batch_size, shuffle, seed, device)
        )
        self._handed_out = [0]  # in a list, as DataLoader makes setting an attribute slow
        self._requests = _Requests(self.indices)
        super().__init__(
            _WholeBatches(split),
            sampler=self._requests,
            batch_size=None,
            generator=torch.Generator().manual_seed(seed),
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory=pin_memory,
            worker_init_fn=_begin,
        )

    def share(self, rank: int, world_size: int, training: bool) -> "BatchLoader":
        """Read one process' part of every batch, as `Shares` says; made for the batches of all processes together."""
        self.indices = self._requests.indices = Shares(self.indices, rank, world_size, training)
        return self

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        handed_out = self._handed_out
        handed_out[0] = self.indices.skip
        direct = self.num_workers == 0 and not self.pin_memory
        fetch = partial(read, self.split) if isinstance(self.indices, Shares) else self.split.batch
        for batch in map(fetch, self.indices) if direct else _from_workers(super().__iter__()):
            handed_out[0] += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches handed to the trainer in this epoch."""
        return {"batches": self._handed_out[0]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the saved number of batches; a finished epoch starts the next one."""
        self.indices.skip = state["batches"] % len(self.indices)


def read(split: Split, index: Any) -> Batch:
    """The samples of a split; none where a process has no part of a batch."""
    if not isinstance(index, Tensor) or len(index):
        return split.batch(index)
    x, y, lengths, starts = split.batch(index.new_zeros(1))
    return Batch(x[:0], y[:0], None if lengths is None else lengths[:0], starts)


def _begin(worker_id: int) -> None:
    """In a worker: no traceback when the training process leaves while it takes a batch; that one says why."""
    sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, where: Any) -> None:
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, where)


def _from_workers(batches: Any) -> Iterator[Batch]:
    """torch's iterator, which says that a worker died, but not where it dies while its last batch is fetched."""
    try:
        yield from batches
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        workers = getattr(batches, "_workers", [])
        for worker in workers:
            worker.join(timeout=0.1)
        dead = ", ".join(str(worker.pid) for worker in workers if not worker.is_alive())
        if not dead:
            raise
        raise RuntimeError(f"DataLoader worker (pid(s) {dead}) exited unexpectedly") from error
