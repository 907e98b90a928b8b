"""What a comparison found: `compare.json`, a table, `report.html`, and the same on TensorBoard."""

import math
import platform
from datetime import date
from pathlib import Path
from statistics import median_low
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmopt import results
from lstmopt.compare import html
from lstmopt.compare.arms import Arm, arm
from lstmopt.compare.statistics import Effect, holm, least_seeds, paired_effect, seeds_for, shown_from, verdict
from lstmopt.errors import ConfigError
from lstmopt.search.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lstmopt.compare.variants import Variants

COLUMNS = ("variant", "verdict", "effect", "95 % interval", "p", "seeds", "time to base", "time", "MB")


def write(study: Study, sweep: "Variants") -> None:
    """Compare the runs that there are so far.

    Raises:
        ConfigError: the base failed, or runs lie in a folder of another machine.
    """
    arms = [arm(trial, sweep) for trial in study.trials()]
    seeds = sweep.search.seeds_per_trial
    elsewhere = [one.label for one in arms if one.status == "completed" and len(one.runs) < seeds]
    if elsewhere:
        raise ConfigError(
            f"runs of {', '.join(elsewhere)} are not in {sweep.folder}",
            "type hydra.sweep.dir=FOLDER, one that all machines of the comparison share",
        )
    if not arms or not arms[0].runs:
        reason = arms[0].reason if arms else "no run has ended"
        raise ConfigError(f"the base has no completed run: {reason}", f"see {sweep.folder}")
    metric, direction = next(iter(sweep.directions.items()))
    mode = direction.removesuffix("imize")
    found = {
        "study": study.study.study_name,
        "metric": metric,
        "mode": mode,
        "base": [word for word in sweep.fixed if not word.lstrip("+").startswith(("search", "hydra"))],
        "seeds": [sweep.config.seed + k for k in range(sweep.search.seeds_per_trial)],
        "date": str(date.today()),
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": results.versions(),
        "arms": compared(arms, mode),
    }
    results.write(sweep.folder, found, "compare.json")
    table, pictures = rows(found), html.pictures(found, arms)
    html.write(found, COLUMNS, table, pictures, sweep.folder)
    _tensorboard(table, pictures, sweep.folder)
    show(found, table, sweep.folder)


def compared(arms: list[Arm], mode: str) -> list[dict[str, Any]]:
    """Facts of each arm, the base first; statistics of the others against it.

    Args:
        arms: the base, then its variants.
        mode: `min` or `max`, which way the metric is better.
    """
    base, variants = arms[0], arms[1:]
    effects: dict[int, Effect] = {}
    for number, one in enumerate(variants):
        seeds = sorted(base.runs.keys() & one.runs.keys())
        if one.status != "failed" and seeds:
            pairs = np.array([[base.runs[k].value, one.runs[k].value] for k in seeds])
            effects[number] = paired_effect(pairs[:, 0], pairs[:, 1])
    adjusted = dict(zip(effects, holm([effect.p for effect in effects.values()]), strict=True))
    found = [_facts(base, base, mode) | {"verdict": "base"}]
    for number, one in enumerate(variants):
        facts = _facts(one, base, mode)
        if number in effects:
            facts |= _statistics(effects[number], adjusted[number], len(variants), mode)
        else:
            facts["verdict"] = one.status if one.status in ("failed", "running") else "no run in common"
        found.append(facts)
    return found


def _facts(one: Arm, base: Arm, mode: str) -> dict[str, Any]:
    """What needs no statistics; ratios to the base are medians over the seeds that both have."""
    runs = one.runs.values()
    to_base, times, each = [], [], []
    for k, run in sorted(one.runs.items()):
        reached = run.seconds_to(base.runs[k].value, mode) if k in base.runs else math.nan
        seconds = {"seconds": run.seconds, "seconds_to_base": _finite(reached)}
        each.append({"number": k, "value": run.value, **seconds, "peak_memory_mb": run.memory, "metrics": run.metrics})
        if k in base.runs:
            own = base.runs[k].seconds_to(base.runs[k].value, mode)
            to_base.append(reached / own if own else math.nan)
            times.append(run.seconds / base.runs[k].seconds)
    known = [ratio for ratio in to_base if not math.isnan(ratio)]
    return {
        "variant": one.label,
        "status": one.status,
        "reason": one.reason,
        "seeds": len(one.runs),
        "values": [run.value for run in runs],
        "runs": each,
        "mean": float(np.mean([run.value for run in runs])) if runs else None,
        "seconds": float(np.sum([run.seconds for run in runs])),
        "time": float(np.median(times)) if times else None,
        "time_to_base": _finite(median_low(known)) if known else None,
        "reached_base": f"{sum(map(math.isfinite, known))} of {len(known)}",
        "peak_memory_mb": float(np.max([run.memory for run in runs])) if runs else None,
    }


def _statistics(effect: Effect, adjusted: float, variants: int, mode: str) -> dict[str, Any]:
    found = verdict(effect, adjusted, variants, mode)
    needed = seeds_for(effect, variants)
    return {
        "verdict": found,
        "effect": effect.mean,
        "interval": [_finite(effect.low), _finite(effect.high)],
        "p": effect.p,
        "p_holm": adjusted,
        "spread": effect.spread,
        "seeds_needed": max(needed or 0, least_seeds(variants)) if found == "too few seeds" else needed,
        "shown_from": _finite(shown_from(effect, variants)),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The table's cells, as words."""
    base = found["arms"][0]["mean"]
    table = []
    for one in found["arms"]:
        cells = [one["variant"], said(one, base)]
        if "effect" in one:
            low, high = (part_of(end, base) if end is not None else "?" for end in one["interval"])
            cells += [part_of(one["effect"], base), f"{low} … {high}", f"{one['p_holm']:.2g}"]
        else:
            cells += [f"{one['mean']:.4g}" if one["mean"] is not None else "", "", ""]
        cells += [str(one["seeds"]), _times(one), _ratio(one["time"]), _number(one["peak_memory_mb"])]
        table.append(cells)
    return table


def part_of(value: float, base: float) -> str:
    """A difference in parts of the base's mean; as it is where that is 0, as a score of too short a run may be."""
    return f"{value / abs(base):+.1%}" if base else f"{value:+.3g}"


def said(one: dict[str, Any], base: float) -> str:
    """The verdict, and what would be needed for one."""
    words = str(one["verdict"])
    if words == "too few seeds":
        words += f": needs {one['seeds_needed']}"
    elif words == "no difference shown" and one["shown_from"] is not None:
        words += f" (of {part_of(one['shown_from'], base).lstrip('+')} or more)"
    return f"{words}; {one['reason']}" if one["reason"] else words


def _times(one: dict[str, Any]) -> str:
    if one["time_to_base"] is not None:
        return _ratio(one["time_to_base"])
    return "" if one["reached_base"].endswith(" 0") else f"never ({one['reached_base']})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ×"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def show(found: dict[str, Any], cells_of: list[list[str]], folder: Path) -> None:
    """The table on the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    least = least_seeds(max(1, len(found["arms"]) - 1))
    base = escape(" ".join(found["base"])) or "the defaults"
    table = Table(title=f"{found['metric']} against the base: {base}")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", overflow="fold")
    for cells, one in zip(cells_of, found["arms"], strict=True):
        style = {"better": "green", "worse": "red", "failed": "red"}.get(one["verdict"], "")
        table.add_row(*map(escape, cells), style=style)
    console = Console()
    console.print(table)
    wanted = "less" if found["mode"] == "min" else "more"
    console.print(
        f"effect: mean paired difference in parts of the base's mean, {wanted} is better; p of the permutation test "
        f"after Holm; at least {least} seeds can show a difference",
        highlight=False,
    )
    console.print(f"compare.json and report.html are in {folder}", highlight=False, soft_wrap=True, markup=False)


def _tensorboard(table: list[list[str]], pictures: dict[str, "Figure"], folder: Path) -> None:
    """The pictures and the table in a run of their own, `comparison`."""
    from torch.utils.tensorboard import SummaryWriter

    place = folder / "comparison"
    for old in place.glob("events.*"):
        old.unlink()
    with SummaryWriter(str(place)) as writer:
        lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        writer.add_text("comparison", "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in table)]))
        for name, figure in pictures.items():
            writer.add_figure(f"comparison/{name}", figure)
