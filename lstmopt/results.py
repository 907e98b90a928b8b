"""`results.json` and the table at the end of a run."""

import functools
import json
import math
import os
import platform
import resource
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lstmopt import __version__
from lstmopt.tasks.task import Task

STATUS = Path("/proc/self/status")  # of Linux


def write(folder: Path, result: dict[str, Any], name: str = "results.json") -> None:
    """Write `results.json` so that a reader sees the old file or the new one, never a part."""
    handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(worded(result), file, indent=2, allow_nan=False)
            file.write("\n")
        os.chmod(part, 0o644)
        os.replace(part, folder / name)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def read(folder: Path) -> dict[str, Any] | None:
    """What a run folder's `results.json` says; None where there is none, or a damaged one."""
    try:
        found: dict[str, Any] = _numbers(json.loads((folder / "results.json").read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return found


def worded(value: Any) -> Any:
    """The same, with a word for each number that JSON lacks: "inf", "-inf" and "nan"."""
    if isinstance(value, dict):
        return {key: worded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [worded(inner) for inner in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    """What `worded` was given."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def finished(folder: Path, max_epochs: int = 0, max_steps: int = -1) -> dict[str, Any] | None:
    """The result of a run that was completed in this folder and has no epochs, or no steps, left to train."""
    result = read(folder)
    if result is None:
        return None
    ended = result["epochs"] >= max_epochs or 0 <= max_steps <= result["steps"]
    return result if result["status"] == "completed" and ended else None


def peak_memory_mb() -> float:
    """Largest memory since `forget_peak_memory`, in MB: resident memory, or on a GPU what torch has held there.

    Not on Linux: since the process began.
    """
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e6
    if STATUS.is_file():  # `ru_maxrss` would begin with the size of the process that started this one
        return float(STATUS.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def forget_peak_memory() -> None:
    """Begin anew, so that a run counts its own memory and not that of runs before it in the same process."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


@functools.cache
def versions() -> dict[str, str]:
    """Releases that the result was made with; every checkpoint has them, and looking them up reads files."""
    names = ("torch", "pytorch-lightning", "hydra-core", "torchmetrics", "numpy")
    return {"lstmopt": __version__, "python": platform.python_version()} | {name: version(name) for name in names}


def show(task: Task, result: dict[str, Any], folder: Path) -> None:
    """The final table on the terminal: test metrics beside the baselines', and where everything is."""
    from rich.console import Console
    from rich.table import Table

    from lstmopt.evaluate import improvement

    scores = result["baseline"]["all"]
    epochs = f"{result['epochs']} epochs"
    if result.get("first_epoch"):  # best.ckpt of those before was not there when the run went on
        epochs = f"epochs {result['first_epoch'] + 1} to {result['epochs']}"
    which = f"best of {epochs} by {result['monitor']}" if result["checkpoint"] else f"after the last of {epochs}"
    table = Table(title=f"test, {which}")
    for column in ("metric", "LSTM", *scores):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name in next(iter(scores.values())):
        if name in result["metrics"]:
            table.add_row(name, *(f"{values[name]:.4g}" for values in (result["metrics"], *scores.values())))
    console = Console()
    console.print(table)
    key = f"test/{task.primary}"
    gain = improvement(task, result["metrics"][key], result["baseline"][key])
    console.print(
        f"{key}: {abs(gain):.1%} {'less' if gain >= 0 else 'more'} error than {result['baseline']['name']}; "
        f"{result['steps']} steps in {result['train_seconds']:.1f} s, {result['parameters']:,} parameters",
        highlight=False,
        soft_wrap=True,
    )
    drawn = ", picture.png" if (folder / "picture.png").is_file() else ""
    console.print(f"results.json{drawn} and checkpoints are in {folder}", highlight=False, soft_wrap=True, markup=False)
