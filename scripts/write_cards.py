"""Write the cards of docs/techniques/, their figures and index, and the table of techniques in the README.

    python scripts/write_cards.py

A card is made from the option's YAML file, its class's docstring, docs/techniques/notes.yaml, and the measurements of
scripts/train_every_option.py in docs/techniques/results.json.
"""

import inspect
import json
import re
from pathlib import Path

import yaml
from hydra.utils import get_object
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "docs" / "techniques"
NOTES = yaml.safe_load((CARDS / "notes.yaml").read_text())
BESIDE = {
    "optimizer": "adam",
    "lr_scheduler": "none",
    "gradient_clip": "norm",
    "precision": "fp32",
    "memory": "none",
    "model": "lstm",
    "profiler": "none",
    "loader": "auto",
}

PLACEHOLDERS = {"path": "FILE", "target": "COLUMN"}  # of keys that have no default

MEASURED = "when this was measured (Adam at 0.001, torch's initialisation)"


def target(text):
    found = re.search(r"^\s*_target_: (\S+)", text, re.M)
    return found.group(1) if found else None


def docstring(name):
    """The class's docstring without its argument list, which the keys show."""
    text = inspect.getdoc(get_object(name)) or ""
    parts = re.split(r"\n\n(?=Args:|Raises:|Attributes:|Logged:|Example|Reference:|\.\. )", text)
    return parts[0].strip() if name.startswith("lstmopt.") else ""


def keys(text):
    """The option file without its first comments: every key with its default and meaning."""
    lines = text.splitlines()
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return "\n".join(lines)


def summary(text):
    comments = [line[2:] for line in text.splitlines() if line.startswith("# ") and "@package" not in line]
    return comments[0]


def figure(group, option, results):
    """The validation loss beside the default's; beside it what the technique acts on. Gives the file's name."""
    result, default = results[group][option], results[group].get(BESIDE[group], {})
    panel = {"lr_scheduler": "lr", "gradient_clip": "norm"}.get(group)
    drawing = Figure(figsize=(8 if panel else 4.5, 2.8), layout="constrained")
    axes = drawing.subplots(1, 2 if panel else 1, squeeze=False)[0]
    if option != BESIDE[group] and "curve" in default:
        axes[0].plot(*zip(*default["curve"], strict=True), color="0.6", label=BESIDE[group])
    axes[0].plot(*zip(*result["curve"], strict=True), color="tab:orange", label=option)
    axes[0].set(xlabel="step", ylabel="val/loss", yscale="log")
    axes[0].legend()
    if panel == "lr":
        axes[1].plot(*zip(*result["lr"], strict=True), color="tab:orange")
        axes[1].set(xlabel="step", ylabel="learning rate")
    elif panel == "norm":
        axes[1].plot(*zip(*result["norm_before"], strict=True), color="0.6", label="before")
        axes[1].plot(*zip(*result["norm_after"], strict=True), color="tab:orange", label="after")
        axes[1].set(xlabel="step", ylabel="gradient norm", yscale="log")
        axes[1].legend()
    name = f"{group}_{option}.png"
    (CARDS / "figures").mkdir(exist_ok=True)
    drawing.savefig(CARDS / "figures" / name, dpi=70)
    return name


def measured(group, option, results):
    result = results.get(group, {}).get(option)
    if result is None:  # no technique: a part that others are assembled with
        return []
    if "refused" in result:
        reason = "\n".join("    " + line for line in result["refused"].splitlines())
        return ["On the machine of the measurements it is refused:", "", reason, ""]
    default = results[group][BESIDE[group]]
    rows = [(f"`{option}`", result)] + ([] if result is default else [(f"`{BESIDE[group]}`", default)])
    lines = ["| | val/loss | test/mse | steps | seconds | peak memory |", "|---|---|---|---|---|---|"]
    for name, r in rows:
        lines.append(
            f"| {name} | {r['val_loss']:.5f} | {r['test_mse']:.5f} | {r['steps']} | {r['seconds']:.1f}"
            f" | {r['peak_memory_mb']} MB |"
        )
    return [*lines, "", f"![validation loss](figures/{figure(group, option, results)})", ""]


def command(group, option):
    if group == "callbacks" and option not in ("default", "none"):
        return f"python train.py 'callbacks=[{option}]'"
    text = (ROOT / "conf" / group / f"{option}.yaml").read_text()
    due = re.findall(r"^(\w+): \?\?\?", text, re.M)  # keys that have no default
    words = [f"{group}={option}", *(f"{group}.{key}={PLACEHOLDERS.get(key, key.upper())}" for key in due)]
    return f"python train.py {'-m ' if group == 'search' else ''}{' '.join(words)}"


def card(group, option, results):
    text = (ROOT / "conf" / group / f"{option}.yaml").read_text()
    note = NOTES[group][option]
    name = target(text)
    lines = [f"# `{group}={option}`", "", summary(text), ""]
    if name and docstring(name):
        lines += [docstring(name), ""]
    lines += [f"**When.** {note['when']}", ""]
    if note["cost"] != "-":
        lines += [f"**Cost.** {note['cost']}", ""]
    if note["equation"] != "-":
        lines += [f"**Equation.** {note['equation']}", ""]
    if note["source"] != "-":
        lines += [f"**Source.** {note['source']}", ""]
    if note["verified"] != "-":
        lines += [f"**Verified against.** {note['verified']}.", ""]
    lines += ["```bash", command(group, option), "```", "", "```yaml", keys(text), "```", ""]
    found = measured(group, option, results)
    if found:
        lines += [f"Default data, seed 0, one thread, all else as it was by default {MEASURED}:", "", *found]
    (CARDS / f"{group}_{option}.md").write_text("\n".join(lines).rstrip() + "\n")


def table(link, groups):
    lines = ["| technique | override | source | verified against |", "|---|---|---|---|"]
    for group in groups:
        for option, note in NOTES[group].items():
            if option != "none":
                name = f"[{option}]({link}{group}_{option}.md)"
                lines.append(f"| {name} | `{group}={option}` | {note['source']} | {note['verified']} |")
    return "\n".join(lines)


def main():
    path = CARDS / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for group, options in NOTES.items():
        for option in options:
            card(group, option, results)
    index = [
        "# Techniques",
        "",
        "One page each: what it is, when it is for, what it costs, its source, its keys, and one run on the default",
        "data. One run of one seed shows that a technique works, not that it is better.",
        "",
        table("", BESIDE),
        "",
        "## What they are assembled with",
        "",
        table("", [group for group in NOTES if group not in BESIDE]),
        "",
    ]
    (CARDS / "README.md").write_text("\n".join(index))
    readme = ROOT / "README.md"
    begin, end = "<!-- techniques -->", "<!-- end of techniques -->"
    text = readme.read_text()
    before, rest = text.split(begin)
    readme.write_text(f"{before}{begin}\n{table('docs/techniques/', BESIDE)}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
