"""Choose before a run what the config leaves to `tune`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from lstmopt.errors import CheckpointError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHOSEN = {"tune.batch_size": "data.batch_size", "tune.lr": "optimizer.lr"}  # in this order


def settle(cfg: DictConfig, output_dir: Path, saved: dict[str, Any] | None) -> dict[str, Any]:
    """Put batch size and learning rate into the config: looked for, or those of the run that goes on.

    The run that follows is, to the bit, the one with these values typed. The choice is printed, and drawn in
    `tune_batch_size.png` and `tune_lr.png`.

    Args:
        cfg: the composed config; `data.batch_size` and `optimizer.lr` are set in it.
        output_dir: the run folder.
        saved: the settings in the checkpoint that the run goes on from; None where there is none.

    Returns:
        The values by key; empty where nothing is asked for.

    Raises:
        ConfigError: there is nothing to suggest.
        CheckpointError: the checkpoint does not say what was found.
        Interrupted: a signal came.
    """
    asked = [key for name, key in CHOSEN.items() if OmegaConf.select(cfg, name)]
    pictures: dict[str, Figure] = {}
    found: dict[str, Any] = {}
    for key in asked:
        if saved is not None:
            if key not in saved:
                raise CheckpointError(f"the checkpoint does not say its {key}", f"type it, without {_name(key)}=true")
            found[key], how = saved[key], "as the run began"
        else:
            found[key], how, pictures[f"{_name(key).replace('.', '_')}.png"] = _find(cfg, key)
        OmegaConf.update(cfg, key, found[key])
        print(f"tune: {key}={found[key]:g} ({how})", flush=True)
    for name, picture in pictures.items():
        picture.savefig(output_dir / name, dpi=100)
    return found


def _name(key: str) -> str:
    return next(name for name, chosen in CHOSEN.items() if chosen == key)


def _find(cfg: DictConfig, key: str) -> tuple[Any, str, "Figure"]:
    """Value, how it was found, and the picture."""
    if key == "optimizer.lr":
        from lstmopt.tune import lr_finder

        rate = lr_finder.find_lr(cfg)
        steps = sum(len(losses) for _, losses in rate.curves)
        return rate.lr, f"{len(rate.curves)} range tests, {steps} steps, {rate.seconds:.1f} s", lr_finder.picture(rate)
    mode = cfg.tune.batch_size_mode
    if mode == "loss":
        from lstmopt.tune import time_to_loss

        least = time_to_loss.find_batch_size(cfg)
        return least.batch_size, str(least), time_to_loss.picture(least)
    from lstmopt.tune import batch_size_finder

    size = batch_size_finder.BatchSizeFinder(cfg, mode).find()
    speeds = ", ".join(f"{trial.batch_size}: {trial.samples_per_second:.0f}/s" for trial in size.trials)
    failed = f"; {min(size.failed)} does not fit" if size.failed else ""
    return size.batch_size, f"{mode} of {speeds}{failed}; {size.seconds:.1f} s", batch_size_finder.picture(size)


def contradictions(cfg: DictConfig, typed: list[str]) -> list[str]:
    """What is both typed, or varied by a search, and left to `tune`.

    Args:
        cfg: the composed config.
        typed: keys.
    """
    return [
        f"{key} is given, and {name}=true would choose it\n  leave one of the two out"
        for name, key in CHOSEN.items()
        if OmegaConf.select(cfg, name) and key in typed
    ] + _about_the_loss(cfg)


def _about_the_loss(cfg: DictConfig) -> list[str]:
    """What is wrong with `tune.batch_size_loss`."""
    loss, asked = cfg.tune.batch_size_loss, cfg.tune.batch_size_mode == "loss"
    if asked and (loss is None or not math.isfinite(loss)):
        return ["tune.batch_size_mode=loss has no loss to reach\n  type tune.batch_size_loss= and a val/loss, as 0.01"]
    if loss is not None and not (asked and cfg.tune.batch_size):
        words = "tune.batch_size=true tune.batch_size_mode=loss"
        return [
            f"tune.batch_size_loss is given, and nothing looks at it without {words}\n  type these, or leave it out"
        ]
    if asked and cfg.trainer.limit_val_batches == 0:
        wrong = "tune.batch_size_mode=loss looks at validations, and trainer.limit_val_batches=0 leaves none"
        return [f"{wrong}\n  type trainer.limit_val_batches=null"]
    return []
