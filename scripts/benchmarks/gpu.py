"""Routes on an NVIDIA GPU: a recorded step beside stock Lightning's, and a stacked LSTM split into layers.

    python scripts/benchmarks/gpu.py [--repeats 5] [--device cpu]

Without a GPU there is nothing to measure; `--device cpu` runs the same code in small sizes, to see that it works.
"""

import argparse
import sys
import tempfile
import time
from contextlib import suppress

import pytorch_lightning as pl
import torch
from in_turns import finish, in_turns, row
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WARM_UP, STEPS = 20, 100


class Done(Exception):
    """Enough steps."""


class Clock(pl.Callback):
    """Milliseconds per step after the first ones."""

    def __init__(self):
        self.steps, self.began, self.per_step = 0, 0.0, 0.0

    def on_train_batch_end(self, trainer, module, *_):
        self.steps += 1
        if self.steps in (WARM_UP, WARM_UP + STEPS):
            wait(module.device.type)
            now = time.perf_counter()
            if self.steps > WARM_UP:
                self.per_step = 1e3 * (now - self.began) / STEPS
                raise Done
            self.began = now


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


class Stock(pl.LightningModule):
    """What a user of stock Lightning writes."""

    def __init__(self, hidden):
        super().__init__()
        self.lstm, self.head = nn.LSTM(1, hidden, batch_first=True), nn.Linear(hidden, 24)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.mse_loss(self.head(self.lstm(x)[0][:, -1]), y)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def stock(device, hidden, length):
    clock, count = Clock(), 64 * (WARM_UP + STEPS)
    data = TensorDataset(torch.randn(count, length, 1), torch.randn(count, 24))
    with tempfile.TemporaryDirectory() as folder, suppress(Done):
        trainer = pl.Trainer(
            accelerator=device.replace("cuda", "gpu"),
            devices=1,
            max_epochs=99,
            default_root_dir=folder,
            gradient_clip_val=1.0,
            enable_model_summary=False,
            callbacks=[clock],
        )
        trainer.fit(Stock(hidden), DataLoader(data, 64, shuffle=True))
    return clock.per_step


def recorded(device, hidden, length):
    from hydra import compose, initialize_config_dir

    from lstmopt.build import build
    from lstmopt.conf_dir import conf_dir
    from lstmopt.run import quiet

    clock = Clock()
    overrides = ["data=mackey_glass", "data.horizon=24", f"data.input_length={length}", f"model.hidden_size={hidden}"]
    overrides += [f"trainer={'gpu_graph' if device == 'cuda' else 'default'}", "trainer.max_epochs=99"]
    overrides += ["trainer.check_val_every_n_epoch=99", "callbacks.early_stopping=null", "optimizer=adam"]
    with tempfile.TemporaryDirectory() as folder, suppress(Done):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose(
                "train", [*overrides, f"logger.tensorboard.save_dir={folder}", "callbacks.early_stopping=null"]
            )
        quiet()
        parts = build(cfg, folder)
        parts.trainer.callbacks.append(clock)
        parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return clock.per_step


def stacked(device, route, dtype, hidden, length):
    """Milliseconds of forward and backward of two layers under autocast."""
    from lstmopt.models.split_lstm import SplitLayers

    torch.manual_seed(0)
    made = {"nn.LSTM": nn.LSTM, "split": SplitLayers}[route](hidden, hidden, 2, batch_first=True).to(device)
    x = torch.randn(64, length, hidden, device=device)

    def step():
        with torch.autocast(device, dtype):
            out, _ = made(x)
        out.float().square().mean().backward()

    for _ in range(3):
        step()
    wait(device)
    began = time.perf_counter()
    for _ in range(10):
        step()
    wait(device)
    return 100 * (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU here; --device cpu tries the code without measuring anything")
    small, large = ((128, 256), (512, 512)) if device == "cuda" else ((8, 16), (16, 16))
    steps = {"stock Lightning": lambda: stock(device, *small), "trainer=gpu_graph": lambda: recorded(device, *small)}
    step = in_turns(steps, options.repeats)
    formats = {"bf16": torch.bfloat16} | ({"fp16": torch.float16} if device == "cuda" else {})
    routes = {
        f"{route} {name}": lambda r=route, d=dtype: stacked(device, r, d, *large)
        for name, dtype in formats.items()
        for route in ("nn.LSTM", "split")
    }
    route = in_turns(routes, options.repeats)
    best = min(route, key=route.get)
    pairs = [
        (
            "H=128, T=256: stock Lightning's step ÷ a recorded one",
            step["stock Lightning"] / step["trainer=gpu_graph"],
            3,
        ),
        (f"2 layers, H=512, T=512: nn.LSTM in bf16 ÷ the best, {best}", route["nn.LSTM bf16"] / route[best], 1.5),
    ]
    found = (step, route)
    finish(
        [
            row(what, ratio, bar, {f"{k}, ms": v for k, v in medians.items()}, options.repeats)
            for (what, ratio, bar), medians in zip(pairs, found, strict=True)
        ]
    )


if __name__ == "__main__":
    main()
