"""Batches read by processes of their own."""

import torch

from lstmopt.data.batch import Split
from lstmopt.data.batch_loader import BatchLoader
from lstmopt.loaders.resident import Resident


class Workers(Resident):
    """A `DataLoader` that fetches whole batches in other processes.

    Args:
        num_workers: reading processes.
        prefetch_factor: batches that each of them reads ahead.
        persistent_workers: keep them from epoch to epoch.
        pin_memory: put batches where a GPU copies them from while the host goes on; None: where there is a GPU.
    """

    def __init__(
        self,
        num_workers: int = 2,
        prefetch_factor: int | None = 2,
        persistent_workers: bool = True,
        pin_memory: bool | None = None,
    ) -> None:
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self.persistent_workers, self.pin_memory = persistent_workers, pin_memory

    def batches(self, split: Split, batch_size: int, shuffle: bool, seed: int) -> BatchLoader:
        """The loader of a part."""
        return BatchLoader(
            split,
            batch_size,
            shuffle,
            seed,
            self.num_workers,
            self.prefetch_factor if self.num_workers else None,
            self.persistent_workers and self.num_workers > 0,
            self.pinned(torch.device("cpu")) if self.pin_memory is None else self.pin_memory,
        )
