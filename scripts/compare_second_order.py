"""Natural gradient, Newton-CG and K-FAC against Adam: the loss after the same steps, and the time to the same loss.

    OMP_NUM_THREADS=1 python scripts/compare_second_order.py --epochs 10 --seeds 0 1

Two tasks (`TASKS`), built from the program's own parts with its defaults. Adam's learning rate is the best of `GRID`,
by the training loss of the last epoch, mean over seeds; the three others run as their options are. Every optimizer sees
the same batches from the same weights. Prints a Markdown table: `train/loss` (mean over the last epoch) as the
mean over seeds and seed by seed, and the best `val/loss` as a mean; milliseconds per step; and the mean seconds of
training until `train/loss` of an epoch was as low as Adam's last, with the number of seeds that came there, beside the
seconds that Adam took.
"""

import argparse
import statistics
import time

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from lstmopt.build import build
from lstmopt.conf_dir import conf_dir

TASKS = {
    "co2": ["data=co2"],
    "mackey_glass": ["data=mackey_glass"],
}
GRID = [0.001, 0.003, 0.01, 0.03]
SECOND_ORDER = ["natural_gradient", "newton_cg", "kfac"]


class Record(pl.Callback):
    """The losses of every epoch, and the seconds of training until its end, validation left out."""

    def __init__(self):
        self.train, self.val, self.seconds, self.began = [], [], [0.0], 0.0

    def on_train_batch_start(self, *_):
        self.began = time.perf_counter()

    def on_train_batch_end(self, *_):
        self.seconds[-1] += time.perf_counter() - self.began

    def on_train_epoch_end(self, trainer, _):
        self.train.append(float(trainer.callback_metrics["train/loss"]))
        self.val.append(float(trainer.callback_metrics["val/loss"]))
        self.seconds.append(self.seconds[-1])


def train(overrides, epochs, seed):
    """One run; its record and its number of steps."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        fixed = ["callbacks=none", "logger=none", "trainer.accelerator=cpu"]
        cfg = compose("train", [*overrides, *fixed, f"trainer.max_epochs={epochs}", f"seed={seed}"])
    parts, record = build(cfg, "."), Record()
    parts.trainer.callbacks.append(record)
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return record, parts.trainer.global_step


def reached(record, loss):
    """Seconds until an epoch's loss was as low as `loss`; infinity where none was."""
    return next((s for s, value in zip(record.seconds, record.train, strict=False) if value <= loss), float("inf"))


def mean(values):
    return statistics.mean(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--overrides", nargs="*", default=[], help="for the second-order runs, as optimizer.lr=0.5")
    parser.add_argument("--optimizers", nargs="+", default=SECOND_ORDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | optimizer | steps | train/loss | val/loss | ms/step | seconds to Adam's loss | Adam's seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for task in options.tasks:
        plain = [*TASKS[task], "optimizer=adam"]
        tried = {
            lr: [train([*plain, f"optimizer.lr={lr}"], options.epochs, seed) for seed in options.seeds] for lr in GRID
        }
        best = min(tried, key=lambda lr: mean(record.train[-1] for record, _ in tried[lr]))
        adam = tried[best]
        row(task, f"adam, lr={best}", adam, adam)
        for name in options.optimizers:
            overrides = [*TASKS[task], f"optimizer={name}", *options.overrides]
            row(task, name, [train(overrides, options.epochs, seed) for seed in options.seeds], adam)


def row(task, name, runs, adam):
    steps = runs[0][1]
    pairs = [(record, reference) for (record, _), (reference, _) in zip(runs, adam, strict=True)]
    until = [reached(record, reference.train[-1]) for record, reference in pairs]
    there = [seconds for seconds in until if seconds < float("inf")]
    losses = [f"{record.train[-1]:.3g}" for record, _ in pairs]
    cells = [
        task,
        name,
        steps,
        f"{mean(record.train[-1] for record, _ in pairs):.3g} ({', '.join(losses)})",
        f"{mean(min(record.val) for record, _ in pairs):.3g}",
        f"{1e3 * mean(record.seconds[-1] for record, _ in pairs) / steps:.0f}",
        f"{mean(there):.1f} ({len(there)} of {len(until)})" if there else "never",
        f"{mean(reference.seconds[-1] for _, reference in pairs):.1f}",
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
