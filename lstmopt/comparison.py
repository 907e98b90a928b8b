"""The table over all runs of a multirun, and `sweep.json`. Imported at every start: nothing heavy here."""

import math
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_sweep_dir: Path | None = None


class Comparison(Callback):
    """Hydra calls it: remember where the jobs of a multirun lie."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the first job; a search makes its own report."""
        global _sweep_dir
        if config.search.sampler is None:
            _sweep_dir = Path(config.hydra.sweep.dir).absolute()


def report() -> None:
    """After a multirun, however it ended: write `sweep.json` and print its runs, the best first."""
    if _sweep_dir is None or not _sweep_dir.is_dir():
        return
    trials = collect(_sweep_dir)
    if not trials:
        _remove_unused(_sweep_dir)
        return
    best = next((trial for trial in ranked(trials) if trial["status"] == "completed"), None)
    from lstmopt.results import write

    write(_sweep_dir, {"trials": trials, "best": best}, "sweep.json")
    show(trials, best, _sweep_dir)


def _remove_unused(folder: Path) -> None:
    """Remove a sweep folder that holds nothing but Hydra's copy of the config, and its empty parents."""
    if {path.name for path in folder.iterdir()} <= {"multirun.yaml"}:
        (folder / "multirun.yaml").unlink(missing_ok=True)
        for unused in (folder, *folder.parents[:2]):
            if any(unused.iterdir()) or unused == Path.cwd():
                break
            unused.rmdir()


def collect(folder: Path) -> list[dict[str, Any]]:
    """One entry for each job folder with a `results.json`, in the order of the jobs."""
    from omegaconf import OmegaConf

    from lstmopt.results import read

    trials: list[dict[str, Any]] = []
    for path in folder.glob("*/results.json"):
        result = read(path.parent)
        if result is None:
            continue
        config = OmegaConf.load(path.parent / ".hydra" / "config.yaml")
        trials.append(
            {
                "number": int(path.parent.name) if path.parent.name.isdigit() else len(trials),
                "status": result["status"],
                "overrides": result["overrides"],
                "value": result["best"],
                "run_dir": str(path.parent),
                "mode": str(OmegaConf.select(config, "mode")),
                "monitor": result["monitor"],
                "metrics": result["metrics"],
                "train_seconds": result["train_seconds"],
            }
        )
    return sorted(trials, key=lambda trial: trial["number"])


def ranked(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best first, and those without a value last."""
    sign = -1 if trials[0]["mode"] == "max" else 1

    def place(trial: dict[str, Any]) -> tuple[bool, float]:
        value = math.nan if trial["value"] is None else sign * trial["value"]
        return (False, value) if math.isfinite(value) else (True, 0.0)

    return sorted(trials, key=place)


def show(trials: list[dict[str, Any]], best: dict[str, Any] | None, folder: Path) -> None:
    """Print the runs, the best first.

    Args:
        trials: from `collect`.
        best: one of them.
        folder: of the multirun.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{len(trials)} runs")
    names = dict.fromkeys(name for trial in trials for name in trial["metrics"])
    tests = [name for name in names if name.startswith("test/") and not name.endswith("_raw")]
    for column in ("run", "overrides", "status", trials[0]["monitor"], *tests, "seconds"):
        table.add_column(column, justify="left" if column in ("overrides", "status") else "right", overflow="fold")
    for trial in ranked(trials):
        row = [trial["value"], *(trial["metrics"].get(name) for name in tests)]
        table.add_row(
            f"{trial['number']}{' *' if trial is best else ''}",
            escape(" ".join(trial["overrides"])),
            trial["status"],
            *("" if value is None else f"{value:.4g}" for value in row),
            f"{trial['train_seconds']:.1f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if best is not None:
        console.print(f"best: {' '.join(best['overrides'])}", highlight=False, soft_wrap=True, markup=False)
    where = f"sweep.json is in {folder}; compare with: tensorboard --logdir {folder}"
    console.print(where, soft_wrap=True, markup=False)
