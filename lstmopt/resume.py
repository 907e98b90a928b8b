"""Finding the checkpoint that a run goes on from, and making sure that it fits."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lstmopt.callbacks.early_stopping import state_of, stays_stopped, stopped_by
from lstmopt.callbacks.last_checkpoint import NAME, PREVIOUS
from lstmopt.checkpoint_file import damage
from lstmopt.errors import CheckpointError


def folder_of(cfg: DictConfig, output_dir: Path) -> Path:
    """Where a run keeps what it goes on from."""
    return Path(OmegaConf.select(cfg, "callbacks.last_checkpoint.dirpath") or output_dir / "checkpoints")


def find(path: str, folder: Path) -> str | None:
    """The checkpoint to go on from: `auto` is the newest good one of the folder if there is one, `none` is none.

    Raises:
        CheckpointError: a named file does not exist or is damaged, or all of the folder's are.
    """
    if path == "none":
        return None
    if path == "auto":
        return _newest(folder)
    if "://" in path:
        raise CheckpointError(f"resume={path} is not a file of this machine", "get it first, then type resume=FILE")
    if not Path(path).is_file():
        raise CheckpointError(f"resume={path}: there is no such file", "type resume=FOLDER/checkpoints/last.ckpt")
    problem, before = damage(Path(path)), Path(path).with_name(PREVIOUS)
    if problem:
        other = f"resume={before}" if before.is_file() and not damage(before) else "resume=PATH of another checkpoint"
        raise CheckpointError(
            f"resume={path} is not a checkpoint of a run, or it is damaged: {problem}",
            f"type {other}, or resume=none to train anew",
        )
    return path


def _newest(folder: Path) -> str | None:
    problems: dict[Path, str] = {}
    for name in (NAME, PREVIOUS):
        path = folder / name
        if not path.is_file():
            continue
        problem = damage(path)
        if problem is None:
            for other, why in problems.items():
                print(f"{other} is damaged ({why}); {path}, the one before it, is good")
            return str(path)
        problems[path] = problem
    if problems:
        told = "; ".join(f"{path} is damaged ({why})" for path, why in problems.items())
        raise CheckpointError(told, "type resume=none to train anew, or resume=PATH of another checkpoint")
    return None


def fits(path: str, checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Compare a checkpoint's weights with the module's.

    Raises:
        CheckpointError: they belong to another model.
    """
    differing = differences(checkpoint["state_dict"], module.state_dict())
    if differing:
        raise CheckpointError(
            f"{path} belongs to another model: {', '.join(differing[:3])}"
            + (f" and {len(differing) - 3} more" if len(differing) > 3 else ""),
            "type the same data, task and model options as that run, or resume=none",
        )


def count_epochs(trainer: pl.Trainer) -> None:
    """Let a run with `max_steps` go on after a whole epoch with the next one, as a run without does.

    Lightning takes such an epoch for one that was not finished, ends it again and leaves the next one out.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]


def has_more(path: str, checkpoint: dict[str, Any], cfg: DictConfig) -> None:
    """Make sure that there is something left to train, or in the same folder to finish.

    Raises:
        CheckpointError: the epochs or the steps are done, or that run was stopped early.
    """
    epochs, most = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"], cfg.trainer.max_epochs
    steps, limit = checkpoint["global_step"], cfg.trainer.max_steps
    elsewhere, further = cfg.resume.path != "auto", stopped(checkpoint, cfg)
    if epochs > most or (epochs == most and elsewhere):
        raise CheckpointError(
            f"{path} has seen {epochs} epochs already, and trainer.max_epochs is {most}",
            f"type trainer.max_epochs={2 * epochs}, or resume=none",
        )
    if 0 <= limit <= steps and elsewhere:
        raise CheckpointError(
            f"{path} has made {steps} steps already, and trainer.max_steps is {limit}",
            f"type trainer.max_steps={2 * steps}, or resume=none",
        )
    if further and elsewhere:
        raise CheckpointError(f"{path} was stopped early after {epochs} epochs", f"type {further}, or resume=none")


def stopped(checkpoint: dict[str, Any], cfg: DictConfig) -> str | None:
    """What to type to go on where the run of a checkpoint was stopped early, and one of this config would be at once.

    None where it trains on.
    """
    stopping = OmegaConf.select(cfg, "callbacks.early_stopping")
    state = state_of(checkpoint, stopping.monitor, stopping.mode) if stopping else None
    if state is None or not stays_stopped(state, stopping):
        return None
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if (cfg.trainer.min_epochs or 0) > epochs or (cfg.trainer.min_steps or 0) > checkpoint["global_step"]:
        return None
    by = stopped_by(state)
    value = "a larger" if by == "patience" else "another"
    return f"{value} callbacks.early_stopping.{by} or callbacks.early_stopping=null"


def differences(saved: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Weights that are missing, left over or of another shape."""
    found = [f"{name} is missing" for name in wanted if name not in saved]
    found += [f"{name} is unknown" for name in saved if name not in wanted]
    for name in wanted:
        if name in saved and saved[name].shape != wanted[name].shape:
            found.append(f"{name} has {list(saved[name].shape)} instead of {list(wanted[name].shape)}")
    return found
