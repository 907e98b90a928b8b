"""bfloat16 where it pays."""

import statistics
import time
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning.plugins import MixedPrecision

from lstmopt.callbacks.amp import AMP, computes_in_bf16
from lstmopt.data.datamodule import DataModule
from lstmopt.module import LSTMModule

BUDGET = 1.5  # seconds of trial, the first call of each format left out
ROUNDS = 7


class AutoPrecision(AMP):
    """Time forward and backward of a batch in float32 and in bfloat16, and train in the faster format.

    The trial takes at most two seconds, touches no weight and no random number, and its choice is printed and kept in
    checkpoints; a run that is resumed from one without a choice stays in float32. Another module than `LSTMModule`, or
    other data than lstmopt's, is not tried, and trains in bfloat16 where the device computes in it.

    Args:
        margin: bfloat16 has to be this many times as fast, as it costs digits.

    Attributes:
        chosen: `32-true` or `bf16-mixed`; None as long as nothing is decided.
    """

    def __init__(self, margin: float = 1.05) -> None:
        super().__init__("bf16-mixed")
        self.margin = margin
        self.chosen: str | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing yet: there is no batch to try."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose, or take the resumed choice, and put it in place."""
        if self.chosen is None:
            self.chosen = trainer.strategy.broadcast(self._choose(trainer, pl_module))
        if self.chosen == "bf16-mixed" and trainer.precision != "bf16-mixed":
            super().setup(trainer, pl_module, "fit")

    def _choose(self, trainer: pl.Trainer, module: pl.LightningModule) -> str:
        device = trainer.strategy.root_device
        if not computes_in_bf16(device):
            return self._say("32-true", f"this {device.type} has no bfloat16 arithmetic")
        if trainer.ckpt_path:  # of which the steps are not restored yet
            return self._say("32-true", "as the run began")
        datamodule = getattr(trainer, "datamodule", None)
        if not isinstance(module, LSTMModule) or not isinstance(datamodule, DataModule):
            return self._say("bf16-mixed", "not tried on another module or other data than lstmopt's")
        split = datamodule.splits["train"]
        batch = split.batch(torch.arange(min(datamodule.batch_size, len(split))))
        plain, short = seconds(module, move_data_to_device(batch, device), device)
        chosen = "bf16-mixed" if plain > self.margin * short else "32-true"
        return self._say(chosen, f"forward and backward {1e3 * plain:.1f} ms in float32, {1e3 * short:.1f} ms in bf16")

    def _say(self, chosen: str, reason: str) -> str:
        print(f"precision: {chosen} ({reason})", flush=True)
        return chosen

    def state_dict(self) -> dict[str, Any]:
        """The choice."""
        return {"chosen": self.chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.chosen = state_dict["chosen"]


def seconds(module: LSTMModule, batch: Any, device: torch.device) -> tuple[float, float]:
    """Median seconds of forward and backward in float32 and in bfloat16, in turns."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    times: dict[bool, list[float]] = {False: [], True: []}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        end = float("inf")
        for turn in range(ROUNDS + 1):
            for short, taken in times.items():
                began = _now(device)
                with MixedPrecision("bf16-mixed", device.type).forward_context() if short else torch.enable_grad():
                    loss = module.task.loss(module(batch), batch)
                torch.autograd.grad(loss, parameters, allow_unused=True)
                if turn:
                    taken.append(_now(device) - began)
            end = end if turn else time.perf_counter() + BUDGET
            if times[True] and time.perf_counter() > end:
                break
    return statistics.median(times[False]), statistics.median(times[True])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
