"""Finding the checkpoint that a run goes on from, and making sure that it fits."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lstmopt.errors import CheckpointError


def find(resume: str, output_dir: Path) -> str | None:
    """The checkpoint to go on from: `auto` is the run folder's `last.ckpt` if there is one, `none` is none.

    Raises:
        CheckpointError: a named file does not exist.
    """
    if resume == "none":
        return None
    if resume == "auto":
        last = output_dir / "checkpoints" / "last.ckpt"
        return str(last) if last.is_file() else None
    if not Path(resume).is_file():
        raise CheckpointError(f"resume={resume}: there is no such file", "type resume=FOLDER/checkpoints/last.ckpt")
    return resume


def verify(path: str | Path, module: nn.Module | None = None, max_epochs: int | None = None) -> dict[str, Any]:
    """Read a checkpoint as plain data and compare its weights with the module's.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, or belongs to another model.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        saved: dict[str, Tensor] = checkpoint["state_dict"]
        checkpoint["global_step"], checkpoint["epoch"], checkpoint["loops"]
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of a run, or it is damaged",
            "type resume=none to train anew, or resume=PATH of another checkpoint",
        ) from error
    if module is not None:
        differing = differences(saved, module.state_dict())
        if differing:
            raise CheckpointError(
                f"{path} belongs to another model: {', '.join(differing[:3])}"
                + (f" and {len(differing) - 3} more" if len(differing) > 3 else ""),
                "type the same data, task and model options as that run, or resume=none",
            )
    if max_epochs is not None and checkpoint["epoch"] >= max_epochs:
        raise CheckpointError(
            f"{path} has seen {checkpoint['epoch']} epochs already, and trainer.max_epochs is {max_epochs}",
            f"type trainer.max_epochs={2 * checkpoint['epoch']}, or resume=none",
        )
    return checkpoint


def differences(saved: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Weights that are missing, left over or of another shape."""
    found = [f"{name} is missing" for name in wanted if name not in saved]
    found += [f"{name} is unknown" for name in saved if name not in wanted]
    for name in wanted:
        if name in saved and saved[name].shape != wanted[name].shape:
            found.append(f"{name} has {list(saved[name].shape)} instead of {list(wanted[name].shape)}")
    return found


def weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint."""
    state: dict[str, Tensor] = verify(path)["state_dict"]
    return state
