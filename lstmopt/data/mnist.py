"""MNIST digits read as sequences."""

import gzip
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.download import fetch
from lstmopt.data.splits import Sequences
from lstmopt.errors import DataError

HOME = "https://ossci-datasets.s3.amazonaws.com/mnist"
# name in data.root: name at its home, sha256
FILES = {
    "train-images-idx3-ubyte.gz": (
        "train-images-idx3-ubyte.gz",
        "acdea1692cb9442cff7b4af2052ee1e2ed74707aa8b1286c4d7fcec892a0490c",
    ),
    "train-labels-idx1-ubyte.gz": (
        "train-labels-idx1-ubyte.gz",
        "23066f241d19cc0b363869be69425c8d25c7466b93df54bfdcc27e2d0de41ae2",
    ),
    "test-images-idx3-ubyte.gz": (
        "t10k-images-idx3-ubyte.gz",
        "cc0ae555109c4e508fed3fd6d77ad4f951be915d6e4b7c2527ba399211e13cf9",
    ),
    "test-labels-idx1-ubyte.gz": (
        "t10k-labels-idx1-ubyte.gz",
        "28fbac9411c77370b4deca98550ad99c65a854a7023e65b4212189746bec0abe",
    ),
}


class MNIST(DataModule):
    """Handwritten digits as sequences; the last 5,000 training digits validate.

    Pixels are scaled to zero mean and unit variance (0.1307, 0.3081).

    Args:
        batch_size: digits per batch.
        seed: seed of the batch order.
        root: folder of the data sets, holding `mnist/*.gz`.
        features: pixels per step: 28 reads rows, 1 reads single pixels.

    Reference: LeCun et al. 1998; as sequences: Le, Jaitly & Hinton 2015.
    """

    def __init__(self, batch_size: int, seed: int, root: str, features: int) -> None:
        super().__init__(batch_size, seed)
        self.root, self.features = root, features

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [fetch(self.root, f"mnist/{name}", f"{HOME}/{home}", digest) for name, (home, digest) in FILES.items()]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read the four files, or download them first."""
        x = {part: self._images(part) for part in ("train", "test")}
        y = {part: torch.from_numpy(self._read(part, "labels-idx1").astype(np.int64)) for part in ("train", "test")}
        splits: dict[str, Split] = {
            "train": Sequences(x["train"][:-5000], y["train"][:-5000]),
            "val": Sequences(x["train"][-5000:], y["train"][-5000:]),
            "test": Sequences(x["test"], y["test"]),
        }
        return DataSpec("classification", self.features, 10, class_names=[str(k) for k in range(10)]), splits

    def _images(self, part: str) -> torch.Tensor:
        pixels = self._read(part, "images-idx3").astype(np.float32)
        return torch.from_numpy((pixels / 255 - 0.1307) / 0.3081).view(len(pixels), -1, self.features)

    def _read(self, part: str, kind: str) -> NDArray[np.uint8]:
        """An idx file: a big-endian head of 4 bytes and the shape, then bytes."""
        name = f"{part}-{kind}-ubyte.gz"
        path = fetch(self.root, f"mnist/{name}", f"{HOME}/{FILES[name][0]}", FILES[name][1])
        try:
            content = gzip.decompress(path.read_bytes())
            shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
            return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)
        except (OSError, EOFError, ValueError, IndexError) as error:
            raise DataError(f"{path} is not a gzipped idx file: {error}", "remove it, and it is downloaded") from None
