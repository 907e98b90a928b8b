"""ETTh1: two years of an electricity transformer, hour by hour."""

from pathlib import Path

import numpy as np

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.column_names import check_each_once
from lstmopt.data.datamodule import DataModule
from lstmopt.data.download import fetch
from lstmopt.data.series import windows
from lstmopt.data.table import read

MONTH = 30 * 24
URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"


class ETTh1(DataModule):
    """Electricity transformer temperature, hourly, 7 channels (Zhou et al. 2021, Informer); CC BY-ND 4.0.

    The customary split: 12 months of 30 days train, 4 validate, 4 test.

    Args:
        batch_size: windows per batch.
        seed: seed of the batch order.
        root: folder of the data sets, holding `ett/ETTh1.csv`.
        target: channels to predict; None is all seven.
        input_length: hours the model sees.
        horizon: hours to predict.
    """

    def __init__(
        self, batch_size: int, seed: int, root: str, target: list[str] | None, input_length: int, horizon: int
    ) -> None:
        super().__init__(batch_size, seed)
        self.root, self.target = root, target
        self.input_length, self.horizon = input_length, horizon

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return [fetch(self.root, "ett/ETTh1.csv", URL, SHA256)]

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read the file, or download it first."""
        table = read(str(self.files()[0]))
        names = [name for name in table.names if name != "date"]
        for name in self.target or []:
            table.check(name, "data.target")
        check_each_once(self.target or [], "data.target")
        rows = np.stack([table.numbers(name, "error", "data.target") for name in names], axis=1)
        ends = [[0, 12 * MONTH, 16 * MONTH, 20 * MONTH]]
        return windows(rows, names, self.target or names, ends, self.input_length, self.horizon, season=24)
