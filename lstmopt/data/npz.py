"""Arrays of one's own in an .npz file."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.sequence_parts import random_parts
from lstmopt.data.splits import Sequences
from lstmopt.errors import DataError


class NPZ(DataModule):
    """Sequences `x` `[N, T, F]` (or `[N, T]`) and labels `y`, with `lengths` `[N]` where they are unequal.

    What `y` holds decides the task: whole numbers `[N]` classification, whole numbers `[N, T]` tagging, other numbers
    `[N]`, `[N, C]` or `[N, H, C]` forecasting. Validation and test parts are drawn at random; inputs are standardised
    by the training part's statistics.

    Args:
        batch_size: sequences per batch.
        seed: seed of the batch order and of the parts.
        path: the file, made by `numpy.savez(path, x=..., y=...)`.
        val_fraction: part of the sequences that validate.
        test_fraction: part of the sequences that test.

    Raises:
        DataError: an array is missing, does not fit the others, or holds no finite numbers.
    """

    def __init__(self, batch_size: int, seed: int, path: str, val_fraction: float, test_fraction: float) -> None:
        super().__init__(batch_size, seed)
        self.path, self.val_fraction, self.test_fraction = path, val_fraction, test_fraction

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [path] if (path := Path(self.path)).is_file() else []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read and check the arrays."""
        arrays = self._read()
        x, y = np.asarray(arrays["x"], np.float32), arrays["y"]
        x = x[..., None] if x.ndim == 2 else x
        lengths = torch.from_numpy(arrays["lengths"].astype(np.int64)) if "lengths" in arrays else None
        kept, val, test = random_parts(len(x), self.val_fraction, self.test_fraction, self.seed)
        if min(len(kept), len(val), len(test)) == 0:
            raise DataError(f"{self.path} holds {len(x)} sequences, too few for three parts", "give more sequences")
        inputs = torch.from_numpy(x)
        steps = inputs[kept].flatten(0, 1)
        inputs = (inputs - steps.mean(dim=0)) / steps.std(dim=0).clamp(min=1e-6)
        spec, labels = self._labels(y, x.shape, kept)
        per_step = spec.task == "tagging"

        def part(index: torch.Tensor) -> Sequences:
            return Sequences(inputs[index], labels[index], None if lengths is None else lengths[index], per_step)

        return spec, {"train": part(kept), "val": part(val), "test": part(test)}

    def _labels(
        self, y: NDArray[np.generic], shape: tuple[int, ...], kept: torch.Tensor
    ) -> tuple[DataSpec, torch.Tensor]:
        whole = np.issubdtype(y.dtype, np.integer)
        if whole and y.shape in (shape[:1], shape[:2]):
            if y.min() < 0:
                raise DataError(f"{self.path}: y holds the label {y.min()}", "number the classes from 0 on")
            task = "classification" if y.ndim == 1 else "tagging"
            return DataSpec(task, shape[2], int(y.max()) + 1), torch.from_numpy(y.astype(np.int64))
        if y.ndim > 3:
            raise DataError(
                f"{self.path}: y has the shape {list(y.shape)}", "give y as [N], [N, T], [N, C] or [N, H, C]"
            )
        values = torch.from_numpy(y.astype(np.float32))
        values = values.view(len(y), 1, -1) if y.ndim < 3 else values
        mean, std = values[kept].mean(dim=(0, 1)), values[kept].std(dim=(0, 1)).clamp(min=1e-6)
        spec = DataSpec(
            "forecasting",
            shape[2],
            values.shape[2],
            horizon=values.shape[1],
            season=0,
            target_names=[f"y{k}" for k in range(values.shape[2])],
            mean=mean.tolist(),
            std=std.tolist(),
        )
        return spec, (values - mean) / std

    def _read(self) -> dict[str, NDArray[np.generic]]:
        if not Path(self.path).is_file():
            raise DataError(f"data.path={self.path} does not exist", "type data.path= and the path of an .npz file")
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in ("x", "y", "lengths") if name in file}
        except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, AttributeError) as error:
            raise DataError(f"{self.path} is not an .npz file of plain numbers: {error}", "see numpy.savez") from None
        for name in ("x", "y"):
            if name not in arrays:
                raise DataError(f"{self.path} holds no array {name}", "save it with numpy.savez(path, x=..., y=...)")
        for name, array in arrays.items():
            if not np.issubdtype(array.dtype, np.number):
                raise DataError(f"{self.path}: {name} holds {array.dtype}, no numbers", "number the classes from 0 on")
            with np.errstate(over="ignore"):
                bad = np.argwhere(~np.isfinite(array.astype(np.float32)))
            if len(bad):
                raise DataError(f"{self.path}: {name}{bad[0].tolist()} is no finite number", "mend or remove it")
            if len(array) != len(arrays["x"]):
                raise DataError(
                    f"{self.path}: {name} has {len(array)} rows and x {len(arrays['x'])}", "make them equal"
                )
        x, lengths = arrays["x"], arrays.get("lengths")
        if x.ndim not in (2, 3) or 0 in x.shape:
            raise DataError(f"{self.path}: x has the shape {list(x.shape)}", "give x as [N, T, F] or [N, T]")
        if lengths is not None and (lengths.ndim != 1 or lengths.min() < 1 or lengths.max() > x.shape[1]):
            raise DataError(f"{self.path}: lengths are not all within 1 and {x.shape[1]}", "mend lengths")
        return arrays
