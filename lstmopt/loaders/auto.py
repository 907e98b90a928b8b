"""The loader that fits the machine."""

from typing import TYPE_CHECKING

import psutil
import torch

from lstmopt.data.batch import DataSpec, Split
from lstmopt.loaders.cached import Cached
from lstmopt.loaders.device import Device
from lstmopt.loaders.resident import Resident

if TYPE_CHECKING:
    from lstmopt.data.datamodule import DataModule


class Auto(Resident):
    """`device` on a GPU that the data fit on, `cached` where the files are large for the main memory, else `resident`.

    The choice is printed. All of them give the same batches in the same order.

    Args:
        part_of_memory: of what is free, that the data may take; files grow about four times when they are read.
        folder: of the cache, as for `Cached`.
    """

    def __init__(self, part_of_memory: float = 0.5, folder: str | None = None) -> None:
        self.part_of_memory, self.folder = part_of_memory, folder
        self._device = Device()
        self._said = False

    def load(self, datamodule: "DataModule") -> tuple[DataSpec, dict[str, Split]]:
        """The parts, from the files or from the cache."""
        size = 4 * sum(path.stat().st_size for path in datamodule.files() or [])
        free = psutil.virtual_memory().available
        if size <= self.part_of_memory * free:
            return datamodule.load()
        self._say(f"cached, as the files may take {size / 1e9:.1f} GB of {free / 1e9:.1f} GB of free memory")
        return Cached(self.folder).load(datamodule)

    def place(self, split: Split, device: torch.device) -> Split:
        """On a GPU that has room; otherwise where the part is."""
        self.target = device.type
        if device.type != "cuda":
            self._say("resident, the data in main memory")
            return split
        size, (free, _) = nbytes(split), torch.cuda.mem_get_info(device)
        if size > self.part_of_memory * free:
            self._say(f"resident, as {size / 1e9:.1f} GB of data are much for {free / 1e9:.1f} GB of free GPU memory")
            return split
        self._say("device, the data on the GPU")
        return self._device.place(split, device)

    def _say(self, choice: str) -> None:
        if not self._said:
            print(f"loader: {choice}", flush=True)
        self._said = True


def nbytes(split: Split) -> int:
    """Bytes of a part's arrays."""
    return sum(value.nbytes for value in split.arguments().values() if isinstance(value, torch.Tensor))
