"""As many CPU threads as the model can use."""

import os
import statistics
import time
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from lstmopt.cores import share_of_cores
from lstmopt.errors import ConfigError

WARM_UP = 3  # steps before the trial: kernels are made, memory is fetched
ROUNDS, MOST_ROUNDS = 5, 15
CLEAR = 1.3  # the slower number by the faster one; below, there are more rounds


class Threads(pl.Callback):
    """Try 1, 2, 4 ... threads in turn on the first training steps, and go on with the fastest number.

    A small LSTM is slower with two threads than with one. The steps of the trial are steps of the training, so that it
    costs nothing but their slower half; where two numbers are close, it goes on for longer. No number is above that of
    the cores that this process may use. Nothing is tried on a GPU, nor where `OMP_NUM_THREADS` is set, as parallel
    sweeps do. The choice is printed and kept in checkpoints: a sum may be rounded in another way by other threads.

    Args:
        count: `auto`, or the number of threads.

    Attributes:
        chosen: the number in use; None as long as nothing is decided.
        seconds: median seconds per step by number of threads.

    Raises:
        ConfigError: `count` is not positive.
    """

    def __init__(self, count: int | Literal["auto"] = "auto") -> None:
        if count != "auto" and count < 1:
            raise ConfigError(f"count={count} is no number of threads", "type callbacks.threads.count=1 or auto")
        self.count = count
        self.chosen: int | None = None
        self.seconds: dict[int, float] = {}
        self._times: dict[int, list[float]] = {}
        self._before: int | None = None
        self._step = 0
        self._began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Decide what there is to try."""
        before = torch.get_num_threads()
        self._before, self._times, self._step = before, {}, 0
        if self.count != "auto":
            self.chosen = self.count
        elif self.chosen is None and (trainer.strategy.root_device.type != "cpu" or "OMP_NUM_THREADS" in os.environ):
            self.chosen = before
        if self.chosen is not None:
            torch.set_num_threads(self.chosen)
            return
        cores = share_of_cores(1)
        self._times = {number: [] for number in (2**k for k in range(cores.bit_length())) if number <= cores}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the next number."""
        if self._times and self.chosen is None:
            numbers = list(self._times)
            torch.set_num_threads(numbers[self._step % len(numbers)])
            self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; decide when each number had its rounds."""
        if not self._times or self.chosen is not None:
            return
        numbers = list(self._times)
        if self._step >= WARM_UP * len(numbers):
            self._times[numbers[self._step % len(numbers)]].append(time.perf_counter() - self._began)
        self._step += 1
        rounds = min(map(len, self._times.values()))
        if rounds == max(map(len, self._times.values())) >= ROUNDS:
            self.seconds = {number: statistics.median(times) for number, times in self._times.items()}
            fastest, *others = sorted(self.seconds.values())
            if rounds < MOST_ROUNDS and any(seconds < CLEAR * fastest for seconds in others):
                return
            self.chosen = min(self.seconds, key=self.seconds.__getitem__)
            torch.set_num_threads(self.chosen)
            tried = ", ".join(f"{number}: {1e3 * seconds:.1f} ms" for number, seconds in self.seconds.items())
            print(f"threads: {self.chosen} (a step with {tried})", flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave torch as it was."""
        self._put_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave torch as it was."""
        self._put_back()

    def _put_back(self) -> None:
        if self._before is not None:
            torch.set_num_threads(self._before)
            self._before = None

    def state_dict(self) -> dict[str, Any]:
        """The choice."""
        return {"chosen": self.chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.chosen = state_dict["chosen"]
