"""The report of a comparison as one file that needs nothing else."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lstmopt.compare.arms import Arm

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left }
.better td:nth-child(2) { color: #117733; font-weight: bold }
.worse td:nth-child(2), .failed td:nth-child(2) { color: #aa2222; font-weight: bold }
code { background: #f3f3f3; padding: .1rem .3rem } img { max-width: 100% } footer { color: #666; font-size: .85em }
"""


def write(
    found: dict[str, Any],
    columns: Sequence[str],
    table: list[list[str]],
    drawn: dict[str, "Figure"],
    folder: Path,
) -> None:
    """Write `report.html`.

    Args:
        found: as in `compare.json`.
        columns: of the table.
        table: its cells, a row for each arm.
        drawn: pictures by name.
        folder: where it goes.
    """
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = ""
    for cells, one in zip(table, found["arms"], strict=True):
        words = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        body += f'<tr class="{escape(one["verdict"].split()[0])}">{words}</tr>\n'
    images = ""
    for name, figure in drawn.items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=110)
        images += f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">\n'
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    base = " ".join(found["base"]) or "the defaults"
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{escape(found["study"])}</title><style>{STYLE}</style>
<h1>{escape(found["metric"])}: does it help?</h1>
<p>The base: <code>{escape(base)}</code>, seeds {escape(", ".join(map(str, found["seeds"])))}.</p>
<table><tr>{head}</tr>
{body}</table>
{images}
<p>The effect is the mean difference to the base over the same seeds, in parts of the base's mean; its interval is a
bootstrap's (BCa, 95 %). p is of the two-sided permutation test that swaps base and variant within a seed, adjusted for
the number of variants (Holm); a verdict needs p ≤ 0.05. Time to base: training seconds until the base's best value of
the same seed is reached, in units of the base's own; the median over seeds.</p>
<footer>{escape(found["date"])}; {escape(found["machine"])}; {escape(versions)}</footer></html>
"""
    (folder / "report.html").write_text(page)


def pictures(found: dict[str, Any], arms: list[Arm]) -> dict[str, "Figure"]:
    """The effects with their intervals; the curves, mean over seeds, where there are any."""
    made = {}
    if any("effect" in one for one in found["arms"]):
        made["effects"] = _effects(found)
    if any(len(run.curve) for one in arms for run in one.runs.values()):
        made["curves"] = _curves(found, arms)
    return made


def _effects(found: dict[str, Any]) -> "Figure":
    from matplotlib.figure import Figure

    shown = [one for one in found["arms"] if "effect" in one][::-1]
    figure = Figure(figsize=(9, 1.2 + 0.4 * len(shown)), layout="constrained")
    axes = figure.subplots()
    base = abs(found["arms"][0]["mean"])
    unit = base / 100 or 1.0
    colors = {"better": "#117733", "worse": "#aa2222"}
    for place, one in enumerate(shown):
        color = colors.get(one["verdict"], "#777777")
        if None not in one["interval"]:
            axes.plot(np.array(one["interval"]) / unit, [place, place], color=color, lw=2)
        axes.plot(one["effect"] / unit, place, "o", color=color)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(shown)), [one["variant"] for one in shown])
    unit_name = ", %" if base else ""
    axes.set(xlabel=f"difference to the base in {found['metric']}{unit_name}", ylim=(-0.6, len(shown) - 0.4))
    return figure


def _curves(found: dict[str, Any], arms: list[Arm]) -> "Figure":
    """Over steps and over seconds; a curve ends where the shortest of its seeds does."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for one in arms:
        runs = [run for run in one.runs.values() if len(run.curve)]
        if not runs:
            continue
        length = min(len(run.curve) for run in runs)
        steps = np.mean([run.steps[:length] for run in runs], axis=0)
        curve = np.mean([run.curve[:length] for run in runs], axis=0)
        per_step = np.mean([run.seconds / run.total for run in runs])
        style = {"color": "black", "lw": 2} if one is arms[0] else {"lw": 1.2}
        left.plot(steps, curve, label=one.label, **style)
        right.plot(steps * per_step, curve, **style)
    left.set(xlabel="steps", ylabel=f"{found['metric']}, mean over seeds")
    right.set(xlabel="seconds of training")
    positive = min((line.get_ydata().min() for line in left.lines), default=0) > 0
    for axes in (left, right):
        axes.set_yscale("log" if positive else "linear")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure
