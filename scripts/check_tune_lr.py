"""How good the rate of `tune.lr=true` is: a short training with it beside nine rates from 1e-4 to 1.

    python scripts/check_tune_lr.py --data-root DIR [--optimizers adam sgd] [--write docs/search.md]

For each task the best `val/loss` of five epochs of 60 batches, all from the same weights and batch order (seed 0; the
range tests have other seeds). A rate holds where its loss is at most 10 % above the best of the grid. DIR holds ett/
and tinyshakespeare/.
"""

import argparse
import copy
import io
import math
import os
import re
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir

from lstmopt.build import build
from lstmopt.conf_dir import conf_dir
from lstmopt.run import quiet
from lstmopt.tune.lr_finder import find_lr

MARK = "<!-- check_tune_lr -->"
GRID = [10 ** (-4 + k / 2) for k in range(9)]
COMMON = ["trainer.max_epochs=5", "trainer.limit_train_batches=60", "trainer.limit_val_batches=10", "logger=none"]
COMMON += ["callbacks=none", "callbacks.gradient_clip.nonfinite=skip", "loader=resident"]
TASKS = {
    "co2": ["data=co2"],
    "mackey_glass": ["data=mackey_glass"],
    "adding": ["data=adding", "data.sequence_length=20"],
    "copy_memory": ["data=copy_memory"],
    "etth1": ["data=etth1", "data.root={root}"],
    "tinyshakespeare": ["data=text", "data.path={root}/tinyshakespeare/input.txt"],
}
WITHIN = 1.1


class Best(pl.Callback):
    """The least validation loss; infinite where a loss is no number or the training breaks."""

    loss, diverged = math.inf, False

    def on_validation_end(self, trainer, pl_module):
        loss = float(trainer.callback_metrics["val/loss"])
        self.diverged |= not math.isfinite(loss)
        self.loss = min(self.loss, loss if math.isfinite(loss) else math.inf)


def train(cfg, lr):
    """Best loss, and whether the training diverged."""
    cfg, best = copy.deepcopy(cfg), Best()
    cfg.optimizer.lr = lr
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = build(cfg, folder)
        parts.trainer.callbacks.append(best)
        try:
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
        except Exception:  # 25 steps in a row that are no numbers
            best.diverged = True
    return best.loss, best.diverged


def row(optimizer, task, root):
    """One line of the table, and whether it holds and whether the rate diverged."""
    words = [word.format(root=root) for word in TASKS[task]]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*words, *COMMON, f"optimizer={optimizer}"])
    found = find_lr(cfg)
    loss, diverged = train(cfg, found.lr)
    losses = [train(cfg, lr)[0] for lr in GRID]
    default, _ = train(cfg, cfg.optimizer.lr)
    best = min(losses)
    ratio = loss / best
    steps = sum(len(curve) for _, curve in found.curves)
    line = f"| {optimizer} | {task} | {found.lr:g} | {loss:.4g} | {best:.4g} | {GRID[losses.index(best)]:.2g} "
    line += (
        f"| {ratio:.3f}{' (diverged)' if diverged else ''} | {default / best:.3f} | {steps} in {found.seconds:.0f} s |"
    )
    print(line, " ".join(f"{value:.4g}" for value in losses), flush=True)
    return line, ratio <= WITHIN, diverged


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--optimizers", nargs="+", default=["adam"])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--write", type=Path, help="a page whose part from the mark to the next one is replaced")
    options = parser.parse_args()
    quiet()
    began = time.monotonic()
    lines = [
        "| optimizer | data | rate found | loss | best of nine | its rate | ratio | ratio of the default | search |"
    ]
    lines.append("|---" * 9 + "|")
    verdicts = []
    for optimizer in options.optimizers:
        rows = [row(optimizer, task, options.data_root.resolve()) for task in options.tasks]
        lines += [line for line, _, _ in rows]
        holds, diverged = sum(good for _, good, _ in rows), sum(bad for _, _, bad in rows)
        verdicts.append(f"{optimizer}: within 10 % on {holds} of {len(rows)} tasks, {diverged} diverged")
    minutes = (time.monotonic() - began) / 60
    about = (
        f"{date.today()}, `scripts/check_tune_lr.py`, one thread, {minutes:.0f} minutes: the best `val/loss` of five "
    )
    about += "epochs of 60 batches with the rate of `tune.lr=true`, and with nine rates from 1e-4 to 1."
    text = "\n".join([MARK, about, "", *lines, "", "; ".join(verdicts) + ".", ""])
    print(text)
    if options.write:
        before, _, after = options.write.read_text().partition(MARK)
        following = re.search(r"<!-- ", after)
        options.write.write_text(before + text + ("\n" + after[following.start() :] if following else ""))


if __name__ == "__main__":
    main()
