"""The Mackey-Glass series, chaotic and smooth."""

from pathlib import Path

import numpy as np

from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.datamodule import DataModule
from lstmopt.data.series import time_split, windows

STEPS_PER_UNIT = 10


class MackeyGlass(DataModule):
    """dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t), sampled once per unit of time.

    Integrated by Runge-Kutta of order 4 in steps of 0.1 (the delayed value between two steps is their mean), from a
    random start; the first 300 units are left out. 70 % of the series train, 15 % validate, 15 % test.

    Args:
        batch_size: windows per batch.
        seed: seed of the start and of the batch order.
        tau: delay; from about 17 on the series is chaotic.
        length: samples.
        input_length: samples the model sees.
        horizon: samples to predict.

    Reference: Mackey & Glass 1977.
    """

    def __init__(self, batch_size: int, seed: int, tau: float, length: int, input_length: int, horizon: int) -> None:
        super().__init__(batch_size, seed)
        self.tau, self.length = tau, length
        self.input_length, self.horizon = input_length, horizon

    def files(self) -> list[Path]:
        """See `DataModule.files`."""
        return []

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """Integrate the equation."""
        rows = integrate(self.tau, self.length + 300, self.seed)[300:, None]
        ends = [time_split(0, len(rows), 0.15, 0.15)]
        return windows(rows, ["x"], ["x"], ends, self.input_length, self.horizon, season=1)


def integrate(tau: float, length: int, seed: int) -> np.ndarray:
    """`length` samples of the equation, one per unit of time."""
    step, delay = 1 / STEPS_PER_UNIT, round(tau * STEPS_PER_UNIT)
    x = np.empty(delay + length * STEPS_PER_UNIT + 1)
    x[: delay + 1] = 1.2 + 0.1 * np.random.default_rng(seed).standard_normal()

    def slope(now: float, delayed: float) -> float:
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * now

    for t in range(delay, len(x) - 1):
        before, after = x[t - delay], x[t - delay + 1]
        middle = (before + after) / 2
        k1 = slope(x[t], before)
        k2 = slope(x[t] + step / 2 * k1, middle)
        k3 = slope(x[t] + step / 2 * k2, middle)
        k4 = slope(x[t] + step * k3, after)
        x[t + 1] = x[t] + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x[delay::STEPS_PER_UNIT][:length]
