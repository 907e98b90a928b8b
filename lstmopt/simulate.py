"""The learning rate of every step of a run, without the run: `lstmopt-simulate lr_scheduler=one_cycle`."""

import argparse
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from lstmopt import check, compat
from lstmopt.build import make
from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError


def simulate(cfg: DictConfig, steps_per_epoch: int, losses: list[float]) -> dict[str, list[float]]:
    """Step the schedule of a config as Lightning would, over an optimizer of one parameter.

    Args:
        cfg: the composed config; `optimizer`, `callbacks.lr_schedule` and the length of `trainer` count.
        steps_per_epoch: optimizer steps per epoch.
        losses: what the monitored metric would be after each epoch; the last one goes on.

    Returns:
        `lr`, and `momentum` where the optimizer has one, at each step.
    """
    total = cfg.trainer.max_epochs * steps_per_epoch
    total = total if cfg.trainer.max_steps < 0 else min(total, cfg.trainer.max_steps)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = make(cfg.optimizer)([("weight", parameter)])
    trainer: Any = SimpleNamespace(
        optimizers=[optimizer],
        strategy=SimpleNamespace(lr_scheduler_configs=[]),
        fit_loop=SimpleNamespace(_combined_loader=None),
        estimated_stepping_batches=total,
        print=print,
        callback_metrics={},
        global_step=0,
        sanity_checking=False,
        enable_validation=True,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
    )
    node = (cfg.get("callbacks") or {}).get("lr_schedule")
    schedule: pl.Callback = make(node) if node else pl.Callback()
    module = pl.LightningModule()
    schedule.on_fit_start(trainer, module)
    schedule.on_train_start(trainer, module)
    found: dict[str, list[float]] = {"lr": [], "momentum": []}
    for epoch in range(cfg.trainer.max_epochs):
        for _ in range(min(steps_per_epoch, total - trainer.global_step)):
            group = optimizer.param_groups[0]
            found["lr"].append(float(group["lr"]))
            found["momentum"].append(float(group.get("momentum", group.get("betas", (0.0,))[0])))
            optimizer._opt_called = True  # torch's schedulers ask for a step before theirs
            trainer.global_step += 1
            _step(trainer, "step")
            schedule.on_train_batch_end(trainer, module, None, None, 0)
        trainer.callback_metrics[cfg.monitor] = torch.tensor(losses[min(epoch, len(losses) - 1)])
        schedule.on_validation_end(trainer, module)
        schedule.on_train_epoch_end(trainer, module)
        _step(trainer, "epoch")
    return found


def _step(trainer: Any, interval: str) -> None:
    for config in trainer.strategy.lr_scheduler_configs:
        if config.interval == interval:
            config.scheduler.step()


def picture(found: dict[str, list[float]], steps_per_epoch: int, title: str, path: str) -> None:
    """Learning rate and, where it changes, momentum over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [step / steps_per_epoch for step in range(len(found["lr"]))]
    axes.plot(epochs, found["lr"], color="tab:blue")
    axes.set(xlabel="epoch", ylabel="learning rate", title=title)
    if len(set(found["momentum"])) > 1:
        right = axes.twinx()
        right.plot(epochs, found["momentum"], color="tab:orange")
        right.set_ylabel("momentum", color="tab:orange")
    figure.savefig(path, dpi=100)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    """`lstmopt-simulate [--steps-per-epoch N] [--losses L1,L2,...] [--out FILE] OVERRIDE ...`"""
    parser = argparse.ArgumentParser(prog="lstmopt-simulate", description=__doc__)
    parser.add_argument("--steps-per-epoch", type=int, default=100, help="optimizer steps per epoch (100)")
    parser.add_argument("--losses", type=_numbers, help="the monitored metric after each epoch, as 1,0.8,0.7,0.7")
    parser.add_argument("--out", default="schedule.png", help="the picture (schedule.png)")
    arguments, overrides = parser.parse_known_args()
    try:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            cfg = compose("train", overrides)
        problems = check.problems(cfg) or compat.problems(cfg)
        if problems:
            raise ConfigError("\n".join(problems))
        folder = os.path.dirname(os.path.abspath(arguments.out))
        if arguments.steps_per_epoch < 1 or not os.path.isdir(folder):
            raise ConfigError("there is no such folder, or no step", "type --out FILE and --steps-per-epoch 100")
        losses = arguments.losses or [1 / (1 + min(epoch, 10)) for epoch in range(11)]
        found = simulate(cfg, arguments.steps_per_epoch, losses)
    except Exception as error:
        from lstmopt.train import end

        end(error)
    rates = found["lr"]
    highest = rates.index(max(rates))
    picture(found, arguments.steps_per_epoch, " ".join(overrides) or "lr_scheduler=none", arguments.out)
    print(f"first {rates[0]:.4g}, highest {rates[highest]:.4g} at step {highest}, last {rates[-1]:.4g}", end="; ")
    print(f"{len(rates)} steps in {cfg.trainer.max_epochs} epochs; {arguments.out}", file=sys.stdout)


if __name__ == "__main__":
    main()
