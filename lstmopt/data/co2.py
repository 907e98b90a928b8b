"""The embedded data set: weekly CO2 at Mauna Loa."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.series import time_split, windows


class CO2(DataModule):
    """Weekly CO2 concentration at Mauna Loa, 1958 to 2001, in ppm; 2,284 weeks, public domain.

    The 59 weeks without a measurement are interpolated linearly. 70 % of the weeks train, 15 % validate, 15 % test.

    Args:
        batch_size: windows per batch.
        seed: seed of the batch order.
        input_length: weeks the model sees.
        horizon: weeks to predict.

    Source: Keeling & Whorf 2004 (see the head of `co2.csv`).
    """

    def __init__(self, batch_size: int, seed: int, input_length: int, horizon: int) -> None:
        super().__init__(batch_size, seed)
        self.input_length, self.horizon = input_length, horizon

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Read the embedded record."""
        lines = files("lstmopt.data").joinpath("co2.csv").read_text().splitlines()
        cells = [line.split(",")[1] for line in lines if line[0].isdigit()]
        values = np.array([float(cell or "nan") for cell in cells])
        weeks, measured = np.arange(len(values)), np.isfinite(values)
        rows = np.interp(weeks, weeks[measured], values[measured])[:, None]
        ends = [time_split(0, len(rows), 0.15, 0.15)]
        return windows(rows, ["CO2"], ["CO2"], ends, self.input_length, self.horizon, season=52, unit="ppm")
