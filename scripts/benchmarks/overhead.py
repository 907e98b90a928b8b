"""What a step costs around the model: lstmopt's callbacks and loop beside stock Lightning with the same features.

    python scripts/benchmarks/overhead.py [--repeats 5] [--steps 2000]

A model of one parameter and an SGD step, so that there is nothing but the loop; one thread. Both log the loss, the
learning rate and the gradient norm every 10 steps to TensorBoard, clip by norm, show progress and write checkpoints.
The bare loop (forward, zero_grad, backward, step, over the same loader) is measured in the same process and subtracted.
"""

import argparse
import sys
import tempfile
import time

import pytorch_lightning as pl
import torch
from in_turns import finish, in_turns, number_from, row
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, IterableDataset

WARM_UP = 200


class Steps(IterableDataset):
    def __init__(self, count):
        self.batch, self.count = torch.zeros(1), count

    def __iter__(self):
        return (self.batch for _ in range(self.count))


class NoOp(pl.LightningModule):
    """One parameter; its loss is the parameter. Stock Lightning logs through the module."""

    def __init__(self, logs):
        super().__init__()
        self.weight, self.logs = torch.nn.Parameter(torch.zeros(1)), logs

    def training_step(self, batch, batch_idx):
        loss = self.weight.sum()
        if self.logs:
            self.log("train/loss", loss, prog_bar=True)
        elif self.global_step % self.trainer.log_every_n_steps == 0:
            self.logger.log_metrics({"train/loss": float(loss.detach())}, step=self.global_step)
        return loss

    def on_before_optimizer_step(self, optimizer):
        if self.logs and self.global_step % self.trainer.log_every_n_steps == 0:
            self.log_dict(pl.utilities.grad_norm(self, norm_type=2))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Clock(pl.Callback):
    def __init__(self):
        self.times = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.times[batch_idx] = time.perf_counter()


def callbacks(name):
    if name == "stock":
        return [ModelCheckpoint(), LearningRateMonitor()]
    from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
    from lstmopt.callbacks.last_checkpoint import LastCheckpoint
    from lstmopt.callbacks.lean_loop import LeanLoop
    from lstmopt.callbacks.lr_monitor import LRMonitor
    from lstmopt.callbacks.progress import RunProgress
    from lstmopt.callbacks.threads import Threads
    from lstmopt.callbacks.throughput import Throughput

    return [GradientNormClipping(), LastCheckpoint(), LeanLoop(), LRMonitor(), Threads(), Throughput(), RunProgress()]


def added(name, steps):
    """Microseconds per step beyond the bare loop's."""
    clock, module = Clock(), NoOp(name == "stock")
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=TensorBoardLogger(folder),
            default_root_dir=folder,
            log_every_n_steps=10,
            enable_model_summary=False,
            gradient_clip_val=1.0 if name == "stock" else None,
            callbacks=[*callbacks(name), clock],
        )
        trainer.fit(module, DataLoader(Steps(steps + WARM_UP), batch_size=None))
    per_step = (clock.times[steps + WARM_UP - 1] - clock.times[WARM_UP - 1]) / steps
    return 1e6 * (per_step - bare(module, steps))


def bare(module, steps):
    optimizer = module.configure_optimizers()
    began = 0.0
    for count, _ in enumerate(DataLoader(Steps(steps + WARM_UP), batch_size=None)):
        if count == WARM_UP:
            began = time.perf_counter()
        loss = module.weight.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / steps


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--one", choices=["stock", "lstmopt"], help="this one alone, in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        print(added(options.one, options.steps))
        return
    command = [sys.executable, __file__, "--steps", str(options.steps), "--one"]
    found = in_turns(
        {name: lambda n=name: number_from([*command, n]) for name in ("stock", "lstmopt")}, options.repeats
    )
    medians = {f"{name}, µs per step": value for name, value in found.items()}
    ratio = found["lstmopt"] / found["stock"]
    finish([row("added time per step, lstmopt ÷ stock Lightning", ratio, 0.35, medians, options.repeats, "lower")])


if __name__ == "__main__":
    main()
