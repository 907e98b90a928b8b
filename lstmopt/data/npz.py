"""Arrays of one's own in an .npz file."""

import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.sequence_parts import random_parts
from lstmopt.data.splits import Sequences
from lstmopt.data.step_statistics import mean_and_std
from lstmopt.errors import DataError

NAMES = ("x", "y", "lengths")
MANY = 10_000  # classes
RATIO = 200  # an array of numbers is not packed better than that, unless it is nearly empty
UNREADABLE = (
    ValueError,
    OSError,
    EOFError,
    TypeError,
    KeyError,
    AttributeError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    tokenize.TokenError,
)


class NPZ(DataModule):
    """Sequences `x` `[N, T, F]` (or `[N, T]`) and labels `y`, with `lengths` `[N]` where they are unequal.

    What `y` holds decides the task: whole numbers `[N]` classification, whole numbers `[N, T]` tagging, other numbers
    `[N]`, `[N, C]` or `[N, H, C]` forecasting. Validation and test parts are drawn at random; inputs are standardised
    by the training part's statistics. What stands beyond a sequence's length counts nowhere, and is 0 afterwards.

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
        with np.errstate(over="ignore"):  # in padding
            x, y = np.asarray(arrays["x"], np.float32), arrays["y"]
        x = x[..., None] if x.ndim == 2 else x
        lengths = torch.from_numpy(arrays["lengths"].astype(np.int64)) if "lengths" in arrays else None
        kept, val, test = random_parts(len(x), self.val_fraction, self.test_fraction, self.seed)
        self._check_parts(len(x), len(kept), len(val), len(test))
        inputs = torch.from_numpy(x)
        if lengths is None:
            steps = inputs[kept].flatten(0, 1)
        else:
            valid = torch.arange(x.shape[1]) < lengths[:, None]
            steps = inputs[kept][valid[kept]]
            if np.issubdtype(y.dtype, np.integer) and y.shape == valid.shape:
                y = np.where(valid, y, 0)
        names = [f"x{k}" for k in range(x.shape[2])]
        mean, std = mean_and_std(steps, names)
        inputs = (inputs - mean) / std
        if lengths is not None:
            inputs[~valid] = 0.0
        spec, labels = self._labels(y, x.shape, kept)
        spec = replace(spec, input_names=names, input_mean=mean.tolist(), input_std=std.tolist())
        per_step = spec.task == "tagging"

        def part(index: torch.Tensor) -> Sequences:
            return Sequences(inputs[index], labels[index], None if lengths is None else lengths[index], per_step)

        return spec, {"train": part(kept), "val": part(val), "test": part(test)}

    def _check_parts(self, count: int, train: int, val: int, test: int) -> None:
        if count < 3:
            raise DataError(f"{self.path} holds {count} sequences, too few for three parts", "give more sequences")
        if not train:
            raise DataError(
                f"data.val_fraction={self.val_fraction} and data.test_fraction={self.test_fraction} of {count} "
                "sequences leave nothing to train on",
                "type data.val_fraction=0.2 data.test_fraction=0.2",
            )
        for part, number in (("val", val), ("test", test)):
            if not number:
                fraction = getattr(self, f"{part}_fraction")
                raise DataError(
                    f"data.{part}_fraction={fraction} of {count} sequences is none, and a {part} part is needed",
                    f"type data.{part}_fraction=0.2",
                )

    def _labels(
        self, y: NDArray[np.generic], shape: tuple[int, ...], kept: torch.Tensor
    ) -> tuple[DataSpec, torch.Tensor]:
        whole = np.issubdtype(y.dtype, np.integer)
        if whole and y.shape in (shape[:1], shape[:2]):
            if y.min() < 0:
                raise DataError(f"{self.path}: y holds the label {y.min()}", "number the classes from 0 on")
            if y.max() >= max(y.size, MANY):
                raise DataError(
                    f"{self.path}: y has labels up to {y.max()}, more than it has numbers",
                    "save y as floats to forecast, or number the classes from 0 on",
                )
            task = "classification" if y.ndim == 1 else "tagging"
            return DataSpec(task, shape[2], int(y.max()) + 1), torch.from_numpy(y.astype(np.int64))
        if y.ndim > 3:
            raise DataError(
                f"{self.path}: y has the shape {list(y.shape)}", "give y as [N], [N, T], [N, C] or [N, H, C]"
            )
        values = torch.from_numpy(y.astype(np.float32))
        values = values.view(len(y), 1, -1) if y.ndim < 3 else values
        names = [f"y{k}" for k in range(values.shape[2])]
        mean, std = mean_and_std(values[kept], names)
        spec = DataSpec(
            "forecasting",
            shape[2],
            values.shape[2],
            horizon=values.shape[1],
            season=0,
            target_names=names,
            mean=mean.tolist(),
            std=std.tolist(),
        )
        return spec, (values - mean) / std

    def _check_sizes(self) -> None:
        """Refuse arrays that the file is far too small for, or the memory, before any is taken."""
        with zipfile.ZipFile(self.path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if len(set(names)) < len(names):
                raise DataError(f"{self.path} holds an array twice", "save it anew with numpy.savez")
            free, total = psutil.virtual_memory().available, 0
            for member in (member for member in members if member.filename.removesuffix(".npy") in NAMES):
                total += member.file_size
                packed = member.file_size / max(member.compress_size, 1)
                if total > free / 4 or (packed > RATIO and member.file_size > 2**24):
                    raise DataError(
                        f"{self.path}: {member.filename} would take {total / 1e6:.0f} MB out of "
                        f"{member.compress_size / 1e6:.2f} MB; at most {free / 4e6:.0f} MB and {RATIO} times are read",
                        "save it with numpy.savez, or in smaller files",
                    )
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                        version, np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = header(file)
                    found = member.file_size - file.tell()
                if not dtype.hasobject and math.prod(shape) * dtype.itemsize != found:
                    raise DataError(
                        f"{self.path}: {member.filename} says it has the shape {list(shape)}, "
                        f"{math.prod(shape) * dtype.itemsize / 1e6:.3g} MB, and holds {found / 1e6:.3g} MB",
                        "save it anew with numpy.savez",
                    )

    def _read(self) -> dict[str, NDArray[np.generic]]:
        if not Path(self.path).is_file():
            raise DataError(f"data.path={self.path} does not exist", "type data.path= and the path of an .npz file")
        try:
            self._check_sizes()
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in NAMES if name in file}
        except UNREADABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{self.path} is not an .npz file of plain numbers: {reason}", "see numpy.savez") from None
        for name in ("x", "y"):
            if name not in arrays:
                raise DataError(f"{self.path} holds no array {name}", "save it with numpy.savez(path, x=..., y=...)")
        for name, array in arrays.items():
            if array.ndim == 0:
                raise DataError(f"{self.path}: {name} is a single number", "give every array a row for each sequence")
            if np.iscomplexobj(array):
                raise DataError(f"{self.path}: {name} holds complex numbers", "give real ones")
            if not np.issubdtype(array.dtype, np.number):
                raise DataError(f"{self.path}: {name} holds {array.dtype}, no numbers", "number the classes from 0 on")
            with np.errstate(over="ignore"):
                wrong = ~np.isfinite(array.astype(np.float32))
            ends = arrays.get("lengths")
            if ends is not None and (ends.dtype.kind not in "iuf" or ends.shape != array.shape[:1]):
                ends = None  # refused below
            if name == "x" and array.ndim > 1 and ends is not None:
                wrong[np.arange(array.shape[1]) >= ends[:, None]] = False  # padding
            bad = np.argwhere(wrong)
            if len(bad):
                raise DataError(f"{self.path}: {name}{bad[0].tolist()} is no finite number", "mend or remove it")
            if len(array) != len(arrays["x"]):
                raise DataError(
                    f"{self.path}: {name} has {len(array)} rows and x {len(arrays['x'])}", "make them equal"
                )
        x, lengths = arrays["x"], arrays.get("lengths")
        if arrays["y"].size == 0:
            raise DataError(f"{self.path}: y has the shape {list(arrays['y'].shape)}", "give y a label for every row")
        if x.ndim not in (2, 3) or 0 in x.shape:
            raise DataError(f"{self.path}: x has the shape {list(x.shape)}", "give x as [N, T, F] or [N, T]")
        counted = lengths is None or (lengths.ndim == 1 and np.issubdtype(lengths.dtype, np.integer))
        if not counted or (lengths is not None and (lengths.min() < 1 or lengths.max() > x.shape[1])):
            raise DataError(f"{self.path}: lengths are not all within 1 and {x.shape[1]}", "mend lengths")
        return arrays
