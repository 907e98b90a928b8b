"""The UCR/UEA archive of time series classification."""

from pathlib import Path

import torch
from torch import Tensor

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.sequence_parts import stratified
from lstmopt.data.splits import Sequences
from lstmopt.data.step_statistics import mean_and_std
from lstmopt.errors import DataError

HOME = "https://www.timeseriesclassification.com"


class UCR(DataModule):
    """A set of the archive in its `.ts` form: one or more channels, equal or unequal lengths.

    The archive's own split; validation is cut out of its training part. Channels are standardised by the training
    part's statistics.

    Args:
        batch_size: sequences per batch.
        seed: seed of the batch order and of the validation cut.
        root: folder of the data sets, holding `ucr/<name>_TRAIN.ts` and `ucr/<name>_TEST.ts`.
        name: name of the set, as `ItalyPowerDemand`.
        val_fraction: part of the training sequences that validate.
        segment_length: steps S joined into one, `[T, F]` to `[⌈T / S⌉, S F]`; the first step is repeated in front where
            S does not divide T.

    Raises:
        DataError: a file is missing or a line of it is not usable.

    Reference: Dau et al. 2019, The UCR time series archive.
    """

    def __init__(
        self, batch_size: int, seed: int, root: str, name: str, val_fraction: float, segment_length: int = 1
    ) -> None:
        super().__init__(batch_size, seed)
        self.root, self.name, self.val_fraction = root, name, val_fraction
        self.segment_length = segment_length

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [self._path("TRAIN"), self._path("TEST")]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read both files."""
        train, train_labels = read_ts(self._path("TRAIN"))
        test, test_labels = read_ts(self._path("TEST"))
        classes = sorted(set(train_labels))
        unknown = set(test_labels) - set(classes)
        if unknown:
            raise DataError(f"{self.name}: label {unknown.pop()} is in TEST alone", f"get the set again from {HOME}")
        y = torch.tensor([classes.index(label) for label in train_labels])
        kept, cut = stratified(y, self.val_fraction, self.seed)
        steps = torch.cat([train[int(index)] for index in kept])
        names = [f"channel {k}" for k in range(steps.shape[1])]
        mean, std = mean_and_std(steps, names)

        def part(series: list[Tensor], labels: Tensor) -> Sequences:
            series = [segments((one - mean) / std, self.segment_length) for one in series]
            lengths = torch.tensor([len(one) for one in series])
            padded = torch.nn.utils.rnn.pad_sequence(series, batch_first=True)
            return Sequences(padded, labels, None if (lengths == lengths[0]).all() else lengths)

        splits: dict[str, Split] = {
            "train": part([train[int(index)] for index in kept], y[kept]),
            "val": part([train[int(index)] for index in cut], y[cut]),
            "test": part(test, torch.tensor([classes.index(label) for label in test_labels])),
        }
        joined = self.segment_length
        spec = DataSpec(
            "classification",
            joined * len(names),
            len(classes),
            class_names=classes,
            input_names=names if joined == 1 else [f"{name}, step {k}" for k in range(joined) for name in names],
            input_mean=mean.tolist() * joined,
            input_std=std.tolist() * joined,
        )
        return spec, splits

    def _path(self, part: str) -> Path:
        folder = Path(self.root) / "ucr"
        path = folder / f"{self.name}_{part}.ts"
        if not path.is_file():
            there = sorted({file.name.rsplit("_", 1)[0] for file in folder.glob("*_TRAIN.ts")})
            hint = f"type data.name= and one of {', '.join(there)}; or put it there from {HOME}"
            if not there:
                hint = f"get it from {HOME}, or type data.root=FOLDER that holds ucr/{path.name}"
            raise DataError(f"there is no {path.name} in {folder.absolute()}", hint)
        return path


def segments(series: Tensor, length: int) -> Tensor:
    """A series `[T, F]` with `length` steps joined into one, `[⌈T / length⌉, length F]`."""
    missing = -len(series) % length
    return torch.cat([series[:1].expand(missing, -1), series]).reshape(-1, length * series.shape[1])


def read_ts(path: Path) -> tuple[list[Tensor], list[str]]:
    """Sequences `[T, F]` and labels of a `.ts` file; `:` stands between channels and before the label.

    Raises:
        DataError: a line is not usable.
    """
    series, labels, channels, data = [], [], None, False
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        line = line.strip()
        if not data:
            data = line.lower() == "@data"
            continue
        if not line:
            continue
        *dimensions, label = line.split(":")
        try:
            if "_" in line.rpartition(":")[0]:  # which Python's float takes
                raise ValueError
            values = [[float(cell) for cell in dimension.split(",")] for dimension in dimensions]
        except ValueError:
            raise DataError(f"{path}: line {number} holds a cell that is no number", "mend or remove it") from None
        if not values or len({len(dimension) for dimension in values}) != 1:
            raise DataError(f"{path}: channels in line {number} differ in length", "mend or remove it")
        sequence = torch.tensor(values).T.contiguous()
        if channels not in (None, len(dimensions)) or not sequence.isfinite().all():
            what = "an infinite or missing value" if channels == len(dimensions) else "another number of channels"
            raise DataError(f"{path}: line {number} has {what}", "mend or remove it")
        channels = len(dimensions)
        series.append(sequence)
        labels.append(label.strip())
    if not series:
        raise DataError(f"{path} holds no sequences after a line @data", "use a file in sktime's .ts form")
    return series, labels
