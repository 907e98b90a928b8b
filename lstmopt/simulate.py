"""The learning rate of every step of a run, without the run: `lstmopt-simulate lr_scheduler=one_cycle`."""

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.trainer.states import TrainerFn
from torch import nn

from lstmopt import check, compat, targets
from lstmopt.build import make
from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from lstmopt.conf_dir import conf_dir, shadowed
from lstmopt.errors import ConfigError
from lstmopt.quoting import search_path
from lstmopt.train import UNSAFE, end

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")


def simulate(cfg: DictConfig, steps_per_epoch: int, losses: list[float]) -> dict[str, list[float]]:
    """Step the schedule of a config as Lightning would, over an optimizer of one parameter.

    Args:
        cfg: the composed config; `optimizer`, `callbacks.lr_schedule` and what `trainer` says of length, accumulation
            and validation count.
        steps_per_epoch: optimizer steps per epoch.
        losses: what the monitored metric would be at each validation (of a training metric: after each epoch); the last
            one goes on.

    Returns:
        `lr`, and `momentum` where the optimizer has one, at each step.

    Raises:
        ConfigError: a plateau waits for validations after seconds, or after more batches than an epoch has.
    """
    total = cfg.trainer.max_epochs * steps_per_epoch
    total = total if cfg.trainer.max_steps < 0 else min(total, cfg.trainer.max_steps)
    per_step = max(cfg.trainer.accumulate_grad_batches, OmegaConf.select(cfg, "callbacks.memory.batches") or 1)
    batches = per_step * steps_per_epoch
    # by its name and shape a hidden matrix, whose rate is `optimizer.lr` also where others have one of their own
    optimizer = make(cfg.optimizer)([("weight_hh_l0", nn.Parameter(torch.zeros(1, 1)))])
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
        is_last_batch=True,
        state=SimpleNamespace(fn=TrainerFn.FITTING),
    )
    node = (cfg.get("callbacks") or {}).get("lr_schedule")
    schedule: pl.Callback = make(node) if node else pl.Callback()
    interval = _interval(cfg, batches, per_step) if isinstance(schedule, ReduceLROnPlateau) else batches
    every, monitor = cfg.trainer.check_val_every_n_epoch, str(getattr(schedule, "monitor", cfg.monitor))
    of_training = monitor.startswith("train/")
    to_come = iter(losses)
    module = pl.LightningModule()
    schedule.on_fit_start(trainer, module)
    schedule.on_train_start(trainer, module)
    found: dict[str, list[float]] = {"lr": [], "momentum": []}
    for epoch in range(cfg.trainer.max_epochs):
        for batch in range(batches):
            if trainer.global_step == total:
                return found
            if (batch + 1) % per_step == 0:
                group = optimizer.param_groups[0]
                found["lr"].append(float(group["lr"]))
                found["momentum"].append(float(group.get("momentum", group.get("betas", (0.0,))[0])))
                optimizer._opt_called = True  # torch's schedulers ask for a step before theirs
                trainer.global_step += 1
                _step(trainer, "step")
            schedule.on_train_batch_end(trainer, module, None, None, batch)
            counted = batch if every else epoch * batches + batch
            if (epoch + 1) % (every or 1) == 0 and (counted + 1) % interval == 0:
                if not of_training:
                    trainer.callback_metrics[monitor] = next(to_come, losses[-1])
                schedule.on_validation_end(trainer, module)
        if of_training:
            trainer.callback_metrics[monitor] = next(to_come, losses[-1])
        schedule.on_train_epoch_end(trainer, module)
        _step(trainer, "epoch")
    return found


def _interval(cfg: DictConfig, batches: int, per_step: int) -> int:
    """Batches from one validation to the next, as Lightning counts them."""
    interval = 1.0 if cfg.trainer.val_check_interval is None else cfg.trainer.val_check_interval
    if isinstance(interval, float):
        return max(int(batches * interval), 1)
    if not isinstance(interval, int):
        raise ConfigError(
            f"trainer.val_check_interval={interval} is a time, and no time passes in a simulation",
            "type trainer.val_check_interval= and a number of batches, or a part of an epoch",
        )
    if interval > batches and cfg.trainer.check_val_every_n_epoch:
        raise ConfigError(
            f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch",
            f"type --steps-per-epoch {-(-interval // per_step)} or more",
        )
    return interval


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


def _composed(folder: str | None, overrides: list[str]) -> DictConfig:
    """The config, if it names and holds what a run's config may.

    Raises:
        ConfigError: it does not, or there is no such folder.
    """
    if folder is not None and not os.path.isdir(folder):
        raise ConfigError(f"there is no folder {folder}", "type --config-dir FOLDER")
    own = [search_path(folder)] if folder is not None else []
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", own + overrides, return_hydra_config=True)
    hydra = cfg.hydra
    with open_dict(cfg):
        del cfg["hydra"]
    foreign = targets.problems(cfg, overrides)
    if foreign:
        raise ConfigError("\n".join(foreign[:2]))
    folders = [source.path for source in hydra.runtime.config_sources if source.schema == "file"]
    problems = (shadowed(folders) + check.problems(cfg)) or compat.problems(cfg)
    if problems:
        raise ConfigError("\n".join(problems))
    return cfg


def _look_at(out: Path) -> None:
    """Refuse a picture that cannot be written, before anything else is done.

    Raises:
        ConfigError: its kind is not known, or its folder cannot be written to.
    """
    if out.suffix.lower() not in PICTURES:
        raise ConfigError(f"{out} is not the name of a picture", f"type --out FILE{', or '.join(PICTURES[:3])}")
    try:
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise ConfigError(f"cannot write to {out.parent}: {error.strerror}", "type --out FOLDER/FILE.png") from None


def main() -> None:
    """`lstmopt-simulate [--steps-per-epoch N] [--losses L1,L2,...] [--out FILE] [--config-dir FOLDER] OVERRIDE ...`"""
    parser = argparse.ArgumentParser(prog="lstmopt-simulate", description=__doc__)
    parser.add_argument("--steps-per-epoch", type=int, default=100, help="optimizer steps per epoch (100)")
    parser.add_argument("--losses", type=_numbers, help="the monitored metric at each validation, as 1,0.8,0.7,0.7")
    parser.add_argument("--out", type=Path, default="schedule.png", help="the picture (schedule.png)")
    parser.add_argument("--config-dir", "-cd", metavar="FOLDER", help="a folder with option files of your own")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as those of lstmopt-train")
    words = parser.parse_intermixed_args()
    own = [f"--config-dir={words.config_dir}"] if words.config_dir is not None else []
    overrides = [re.sub("^resume=", "resume.path=", word) for word in words.overrides]
    sys.argv[1:] = own + overrides  # what Hydra refuses is looked for among them
    for name in UNSAFE:
        os.environ.pop(name, None)
    try:
        _look_at(words.out)
        if words.steps_per_epoch < 1:
            raise ConfigError("an epoch has no step", "type --steps-per-epoch 100")
        cfg = _composed(words.config_dir, overrides)
        losses = words.losses or [1 / (1 + min(epoch, 10)) for epoch in range(11)]
        found = simulate(cfg, words.steps_per_epoch, losses)
        try:
            picture(found, words.steps_per_epoch, " ".join(overrides) or "lr_scheduler=none", str(words.out))
        except OSError as error:
            raise ConfigError(f"cannot write {words.out}: {error.strerror}", "type --out FILE.png") from None
    except Exception as error:
        end(error)
    rates = found["lr"]
    highest = rates.index(max(rates))
    print(f"first {rates[0]:.4g}, highest {rates[highest]:.4g} at step {highest}, last {rates[-1]:.4g}", end="; ")
    print(f"{len(rates)} steps in {cfg.trainer.max_epochs} epochs; {words.out}", file=sys.stdout)


if __name__ == "__main__":
    main()
