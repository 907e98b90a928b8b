"""The table over all runs of a multirun, and `sweep.json`. Imported at every start: nothing heavy here."""

import json
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
    done = [trial for trial in trials if trial["status"] == "completed"]
    best = (max if trials[0]["mode"] == "max" else min)(done, key=lambda trial: trial["value"], default=None)
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

    trials: list[dict[str, Any]] = []
    for path in folder.glob("*/results.json"):
        result = json.loads(path.read_text())
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


def show(trials: list[dict[str, Any]], best: dict[str, Any] | None, folder: Path) -> None:
    """Print the runs, the best first.

    Args:
        trials: from `collect`.
        best: one of them.
        folder: of the multirun.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(trials)} runs")
    tests = [name for name in trials[0]["metrics"] if name.startswith("test/") and not name.endswith("_raw")]
    for column in ("run", "overrides", "status", trials[0]["monitor"], *tests, "seconds"):
        table.add_column(column, justify="left" if column in ("overrides", "status") else "right", overflow="fold")
    ranked = sorted(trials, key=lambda t: t["value"] if t["value"] is not None else float("inf"))
    for trial in reversed(ranked) if trials[0]["mode"] == "max" else ranked:
        row = [trial["value"], *(trial["metrics"].get(name) for name in tests)]
        table.add_row(
            f"{trial['number']}{' *' if trial is best else ''}",
            " ".join(trial["overrides"]),
            trial["status"],
            *("" if value is None else f"{value:.4g}" for value in row),
            f"{trial['train_seconds']:.1f}",
        )
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if best is not None:
        console.print(f"best: {' '.join(best['overrides'])}", highlight=False, soft_wrap=True)
    console.print(f"sweep.json is in {folder}; compare with: tensorboard --logdir {folder}", soft_wrap=True)
