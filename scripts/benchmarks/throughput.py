"""Training windows per second: lstmopt with everything on, beside a loop written by hand.

    python scripts/benchmarks/throughput.py --data-root DIR [--repeats 7] [--steps 160] [--peers .venv-peers]

ETTh1, the oil temperature alone, 96 hours to the next 24, one layer of 64 units, batches of 64 windows, Adam, one
thread. lstmopt runs as its program does: progress, TensorBoard, checkpoints, learning rate and gradient norms logged,
clipping by norm. The hand loop is the least that trains the same network: `nn.LSTM`, a linear head on its last output,
batches by one gather of rows out of the series, mean squared error, no clipping, nothing logged; so lstmopt's highway
and window normalisation are off. Rows of their own show it with both, beside the same hand loop and beside one that
has them too; and one with `callbacks.compiled_kernel=null`, on the kernel that the others call. Every figure is taken
in a process of its own, in turns; warm-up, validation and start are left out (an epoch has 188 steps). Other
frameworks (`peers.py`) take part where the environment of `peers-requirements.txt` is there. What bfloat16 costs is
measured by two whole trainings of 3 epochs, the best `val/loss` of each; on a CPU without bfloat16 arithmetic
`precision=bf16_mixed` stays in float32, and there are no such rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch
from in_turns import finish, in_turns, number_from, row

from lstmopt.callbacks.amp import computes_in_bf16

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
WARM_UP = 20
INPUT, HORIZON, HIDDEN, BATCH = 96, 24, 64, 64


def series(root):
    """Standardised, `[N, 1]`, the training part."""
    lines = Path(root, "ett", "ETTh1.csv").read_text().splitlines()
    values = torch.tensor([float(line.rsplit(",", 1)[1]) for line in lines[1:]])
    values = values[: round(len(values) * 0.7)]
    return ((values - values.mean()) / values.std())[:, None]


def hand(options, whole=False):
    """Windows per second of the loop by hand; the whole of lstmopt's own task has its highway and normalisation."""
    data = series(options.data_root)
    rows = torch.arange(INPUT + HORIZON)
    lstm, head = torch.nn.LSTM(1, HIDDEN, batch_first=True), torch.nn.Linear(HIDDEN, HORIZON)
    highway = torch.nn.Linear(INPUT, HORIZON)
    layers = [lstm, head, highway] if whole else [lstm, head]
    optimizer = torch.optim.Adam([weight for layer in layers for weight in layer.parameters()], lr=1e-3)
    clock = Clock(options.steps)
    while True:
        order = torch.randperm(len(data) - len(rows) + 1)
        for index in order.split(BATCH)[:-1]:
            window = data[index[:, None] + rows]
            x, y = window[:, :INPUT], window[:, INPUT:, 0]
            if whole:
                last = x[:, -1:]
                spread = (x - last).square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-4)
                x = (x - last) / spread
            out, _ = lstm(x)
            forecast = head(out[:, -1])
            if whole:
                forecast = (forecast + highway(x[:, :, 0])) * spread[:, 0] + last[:, 0]
            loss = ((forecast - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if clock.tick():
                return clock.speed


class Done(Exception):
    """The last step has ended."""


class Clock:
    """The speed of `steps` steps after the warm-up."""

    def __init__(self, steps):
        self.steps, self.count, self.began, self.speed = steps, 0, 0.0, 0.0

    def tick(self):
        """A step has ended; true when it was the last one."""
        self.count += 1
        if self.count == WARM_UP:
            self.began = time.perf_counter()
        if self.count < WARM_UP + self.steps:
            return False
        self.speed = self.steps * BATCH / (time.perf_counter() - self.began)
        return True


def work(options):
    """The overrides that say what is trained."""
    data = ["data=csv", f"data.path={options.data_root}/ett/ETTh1.csv", "data.target=OT", "data.features=[]"]
    return [*data, "optimizer=adam"]


def val_loss(options, precision):
    """Best validation loss of 3 epochs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *work(options), f"precision={precision}"]
        command += ["trainer.max_epochs=3", f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, capture_output=True)
        return json.loads(Path(folder, "run", "results.json").read_text())["best"]


def lstmopt(options, *overrides):
    """Windows per second of the program."""
    import pytorch_lightning as pl
    from hydra import compose, initialize_config_dir

    from lstmopt.build import build
    from lstmopt.conf_dir import conf_dir
    from lstmopt.run import quiet

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if clock.tick():
                raise Done

    clock = Clock(options.steps)
    with tempfile.TemporaryDirectory() as folder:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("train", [*work(options), f"logger.tensorboard.save_dir={folder}", *overrides])
        quiet()
        parts = build(cfg, folder)
        parts.trainer.callbacks.append(Watch())
        with suppress(Done):
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return clock.speed


SAME = ["task.highway=false", "task.window_norm=none"]
CONTESTANTS = {
    "hand": hand,
    "hand, whole task": lambda options: hand(options, whole=True),
    "lstmopt": lambda options: lstmopt(options, *SAME),
    "lstmopt, torch's kernel": lambda options: lstmopt(options, *SAME, "callbacks.compiled_kernel=null"),
    "lstmopt bf16": lambda options: lstmopt(options, *SAME, "precision=bf16_mixed"),
    "lstmopt, its own task": lstmopt,
}

PEERS = {"neuralforecast": 1.25, "darts": 1.25, "pytorch-forecasting": 2.3, "keras": 1.25}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers", help="their environment")
    parser.add_argument("--one", choices=list(CONTESTANTS), help="this one alone, in this process")
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        print(CONTESTANTS[options.one](options))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    shared = ["--data-root", options.data_root, "--steps", str(options.steps), "--one"]
    contestants = {name: [sys.executable, __file__, *shared, name] for name in CONTESTANTS}
    if not computes_in_bf16(torch.device("cpu")):
        del contestants["lstmopt bf16"]
    python = options.peers / "bin" / "python"
    if python.is_file():
        contestants |= {name: [str(python), str(FOLDER / "peers.py"), *shared, name] for name in PEERS}
    else:
        print(f"no {python}: see scripts/benchmarks/peers-requirements.txt", file=sys.stderr)
    found = in_turns({n: lambda c=c: number_from(c) for n, c in contestants.items()}, options.repeats)

    def against(what, one, other, bar):
        medians = {f"{name}, windows/s": found[name] for name in (one, other)}
        return row(what, found[one] / found[other], bar, medians, options.repeats)

    rows = [against("training windows/s ÷ hand loop", "lstmopt", "hand", 0.95)]
    rows += [against(f"training windows/s ÷ {n}", "lstmopt", n, bar) for n, bar in PEERS.items() if n in found]
    rows.append(against("the compiled kernel ÷ torch's, training windows/s", "lstmopt", "lstmopt, torch's kernel", 1.0))
    both = "with highway and window normalisation"
    rows.append(against(f"{both} ÷ hand loop with both", "lstmopt, its own task", "hand, whole task", 0.95))
    rows.append(against(f"{both} ÷ hand loop without", "lstmopt, its own task", "hand", 0.9))
    if computes_in_bf16(torch.device("cpu")):
        rows.append(against("bf16_mixed ÷ hand loop in float32", "lstmopt bf16", "hand", 1.5))
        losses = {precision: val_loss(options, precision) for precision in ("fp32", "bf16_mixed")}
        ratio = losses["bf16_mixed"] / losses["fp32"]
        rows.append(row("val/loss, bf16_mixed ÷ fp32", ratio, 1.01, losses, 1, "lower"))
    finish(rows)


if __name__ == "__main__":
    main()
