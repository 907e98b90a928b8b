"""Weights for other programs: safetensors and JSON, without anything that a reader would execute."""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from lstmopt import __version__
from lstmopt.errors import CheckpointError, ConfigError, UserError

WEIGHTS, FACTS = "model.safetensors", "model.json"


def export(run_folder: Path, to: Path) -> list[Path]:
    """Write the weights of a run's best epoch, and what they are.

    Args:
        run_folder: of a run; its `results.json` says where `best.ckpt` lies, `checkpoints/` if there is none yet.
        to: a folder; what has the same names there is replaced.

    Returns:
        `model.safetensors`, with the names of the module's state, and `model.json`: settings as they were written
        (what comes from the environment is not looked up), facts about the data, metrics, versions, and the SHA-256 of
        the weights' file. JSON has no number for infinity and NaN: they are the words "inf", "-inf" and "nan".

    Raises:
        CheckpointError: no such checkpoint, or it is damaged, or the run kept none.
        ConfigError: safetensors is not installed, or the folder cannot be written to.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise ConfigError("exporting needs safetensors", "type pip install 'lstmopt[export]'") from None
    from lstmopt import results
    from lstmopt.checkpoint_file import read

    result = results.read(run_folder) or {"checkpoint": "checkpoints/best.ckpt"}
    if result["checkpoint"] is None:
        raise CheckpointError(f"the run in {run_folder} kept no best.ckpt", "type callbacks=default when it is trained")
    path = run_folder / result["checkpoint"]
    if not path.is_file():
        raise CheckpointError(f"there is no {path}", "type lstmopt-export and the folder of a run")
    checkpoint = read(path)
    content = save({name: value.contiguous().clone() for name, value in checkpoint["state_dict"].items()})
    run = checkpoint.get("run", {})
    facts = {
        "format": 1,
        "weights": WEIGHTS,
        "sha256": hashlib.sha256(content).hexdigest(),
        "shapes": {name: list(value.shape) for name, value in checkpoint["state_dict"].items()},
        "settings": run.get("config", {}),
        "data": checkpoint.get("data_spec", {}),
        "metrics": run.get("metrics", {}),
        "epoch": checkpoint["epoch"],
        "steps": checkpoint["global_step"],
        "versions": run.get("versions", {}) | {"exported by lstmopt": __version__},
    }
    text = json.dumps(results.worded(facts), indent=2, allow_nan=False, default=_refuse) + "\n"
    try:
        to.mkdir(parents=True, exist_ok=True)
        return [_write(to / WEIGHTS, content), _write(to / FACTS, text.encode())]
    except OSError as error:
        raise ConfigError(f"cannot write to {to}: {error.strerror}", "type --to FOLDER") from None


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not plain")


def _write(path: Path, content: bytes) -> Path:
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return path


def main() -> None:
    """`lstmopt-export RUN_FOLDER [--to FOLDER]`."""
    parser = argparse.ArgumentParser(prog="lstmopt-export", description=__doc__)
    parser.add_argument("run_folder", type=Path, help="folder of a run, as outputs/2026-01-31/12-00-00")
    parser.add_argument("--to", type=Path, help="folder to write to; export in the run's folder if not given")
    options = parser.parse_args()
    try:
        for path in export(options.run_folder, options.to or options.run_folder / "export"):
            print(path)
    except UserError as error:
        print(f"lstmopt: {error}", file=sys.stderr)
        sys.exit(2)
