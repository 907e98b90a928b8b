"""What a search leaves: `sweep.json`, the best settings, a report and pictures."""

import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url

from lstmopt import comparison, results
from lstmopt.conf_dir import conf_dir
from lstmopt.search.progress import STATUS
from lstmopt.search.study import Study
from lstmopt.signals import waiting

if TYPE_CHECKING:
    from lstmopt.search.sweep import Sweep

BEST = "best"
STOPPED = "stopped"  # and not ended: whoever comes next goes on with it


def keep(study: Study, sweep: "Sweep") -> dict[str, Any]:
    """Write `sweep.json`, and give what stands in it: the trials that there are so far.

    One that was stopped, and that the same command goes on with, is `stopped`; one that another process works at is
    left out. Processes of one folder take turns, and a signal has to wait, so that the file is whole and the newest.
    """
    with waiting(), study.alone():
        found = _found(study, sweep)
        results.write(sweep.folder, found, "sweep.json")
    return found


def _found(study: Study, sweep: "Sweep") -> dict[str, Any]:
    states = [(trial, _status(trial, study)) for trial in study.trials()]
    entries = [entry(trial, sweep, status) for trial, status in states if status]
    done = [one for one in entries if one["status"] == "completed"]
    sign = 1 if next(iter(sweep.directions.values())) == "minimize" else -1
    front = study.study.best_trials if len(sweep.directions) > 1 and done else []
    return {
        "study": study.study.study_name,
        "objectives": sweep.directions,
        "trials": entries,
        "best": min(done, key=lambda one: sign * one["value"], default=None),
        "front": [trial.number for trial in front],
    }


def _status(trial: FrozenTrial, study: Study) -> str:
    """Nothing where another process is at work."""
    if trial.state.is_finished():
        return STATUS[trial.state]
    return STOPPED if study.to_go_on(trial) else ""


def brief(found: dict[str, Any], sweep: "Sweep", table: bool) -> None:
    """Show what was found without the rest of a report: the best settings, and the table too if it is asked for."""
    best = found["best"]
    if table and found["trials"]:
        comparison.show(found["trials"], best, sweep.folder)
    elif best is not None:
        print(f"best: {' '.join(best['overrides'])}")


def write(found: dict[str, Any], study: Study, sweep: "Sweep") -> None:
    """Write and show the rest: the best settings as a file, pictures, a report, a table.

    Args:
        found: from `keep`.
        study: whose trials.
        sweep: what they have in common.
    """
    entries, best = found["trials"], found["best"]
    if not entries:
        return
    if best is not None:
        _best_as_experiment(best, sweep)
    done = sum(one["status"] == "completed" for one in entries)
    pictures, missing = _pictures(study.study, sweep) if done > 1 else ([], [])
    _markdown(found, pictures, sweep)
    comparison.show(entries, best, sweep.folder)
    if best is not None:
        own = [word for folder in _own_folders(sweep) for word in ("--config-dir", str(folder))]
        print(f"once more:      python train.py {shlex.join([*own, *best['overrides']])}")
        print(f"or as a file:   python train.py --config-dir {shlex.quote(str(sweep.folder))} experiment=best")
    print(f"look into it:   optuna-dashboard '{make_url(sweep.storage).render_as_string(hide_password=True)}'")
    if done < 2:
        print(f"no pictures:    they need two completed trials, and there {'is one' if done else 'are none'}")
    elif missing:
        print(f"not drawn:      {', '.join(missing)}, which need more completed trials, or ones that differ")


def entry(trial: FrozenTrial, sweep: "Sweep", status: str) -> dict[str, Any]:
    """One trial, as `sweep.json` and the table show it: of several seeds the mean of each metric, the seconds of all,
    and the most epochs."""
    runs = [results.read(sweep.run_folder(trial.number, k)) for k in range(sweep.search.seeds_per_trial)]
    found = [run for run in runs if run is not None]
    seen = [] if sweep.by_seeds else trial.intermediate_values  # by epochs
    own = [word for word in sweep.fixed if not word.lstrip("+").startswith(("search", "hydra"))]
    values = trial.values or []
    return {
        "number": trial.number,
        "status": status,
        "overrides": own + trial.user_attrs.get("overrides", []),
        "value": values[0] if values else None,
        "run_dir": str(sweep.folder / str(trial.number)),
        "mode": next(iter(sweep.directions.values())).removesuffix("imize"),
        "monitor": next(iter(sweep.directions)),
        "metrics": _means([result["metrics"] for result in found]),
        "train_seconds": sum(result["train_seconds"] for result in found),
        "values": values,
        "params": trial.params,
        "epochs": max([*seen, *(result["epochs"] for result in found)], default=0),
        "reason": trial.user_attrs.get("reason", ""),
    }


def _means(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each metric over the runs that have it."""
    found = {}
    for name in dict.fromkeys(name for one in metrics for name in one):
        values = [one[name] for one in metrics if one.get(name) is not None]
        found[name] = sum(values) / len(values) if values else None
    return found


def _best_as_experiment(best: dict[str, Any], sweep: "Sweep") -> None:
    """`experiment/best.yaml`, which `--config-dir FOLDER experiment=best` takes."""
    groups, renamed = _groups(), _own_options(sweep)
    recipe: list[str] = []
    options: dict[str, Any] = {}  # of a group that is typed twice the last, as on the command line
    tree = OmegaConf.create({})
    for override in OverridesParser.create().parse_overrides(best["overrides"]):
        key, value = str(override.key_or_group), override.value()
        if key == "experiment":  # which this file takes the place of
            recipe = [renamed if value == BEST else str(value)]
        elif key in groups:
            options[key] = [str(one) for one in value] if isinstance(value, list) else str(value)
        else:
            OmegaConf.update(tree, key, value, force_add=True)
    about = f"# The best of {len(best['params'])} varied keys in the study {sweep.search.study}: trial {best['number']}"
    text = f"# @package _global_\n{about}, {best['monitor']} {best['value']:.6g}.\n"
    if recipe or options:
        overrides = [{f"override /{group}": option} for group, option in options.items()]
        text += yaml.safe_dump({"defaults": [*recipe, *overrides, "_self_"]}, sort_keys=False)
    text += OmegaConf.to_yaml(tree) if len(tree) else ""
    (sweep.folder / "experiment").mkdir(exist_ok=True)
    (sweep.folder / "experiment" / f"{BEST}.yaml").write_text(text)


def _groups() -> set[str]:
    return {folder.name for folder in Path(conf_dir()).iterdir() if folder.is_dir()}


def _own_folders(sweep: "Sweep") -> list[Path]:
    """What was typed behind `--config-dir`."""
    sources = sweep.config.hydra.runtime.config_sources
    return [Path(source.path) for source in sources if source.provider == "command-line"]


def _own_options(sweep: "Sweep") -> str:
    """Copy the user's own options beside `best.yaml`, as Hydra takes one `--config-dir`; an earlier `best` gets another
    name, which this gives."""
    renamed = BEST
    for folder in _own_folders(sweep):
        renamed = f"{BEST}_{folder.resolve().name}"
        for file in (file for group in _groups() for file in folder.glob(f"{group}/**/*.yaml")):
            name = file.relative_to(folder)
            target = sweep.folder / (name.with_stem(renamed) if name == Path("experiment", f"{BEST}.yaml") else name)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    return renamed


def _pictures(study: optuna.Study, sweep: "Sweep") -> tuple[list[str], list[str]]:
    """Optuna's plots as PNG files; the names of those, and of those that could not be drawn."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    from optuna.visualization import matplotlib as plots

    several = len(sweep.directions) > 1
    first = (lambda trial: trial.values[0]) if several else None
    name = next(iter(sweep.directions))
    settings: dict[str, Any] = {"target": first, "target_name": name}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    drawn = {
        "history": lambda: plots.plot_optimization_history(study, **settings),
        "importance": lambda: plots.plot_param_importances(study, evaluator=evaluator, **settings),
        "slice": lambda: plots.plot_slice(study, **settings),
        "parallel": lambda: plots.plot_parallel_coordinate(study, **settings),
    }
    if several:
        drawn["front"] = lambda: plots.plot_pareto_front(study, target_names=list(sweep.directions))
    found, missing = [], []
    for name, draw in drawn.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                draw()
            except (ValueError, RuntimeError):  # too few trials, or all of them alike
                plt.close("all")
                missing.append(f"{name}.png")
                continue
            plt.gcf().set_size_inches(max(9, 3 * len(study.best_trials[0].params)) if name == "slice" else 9, 5)
            plt.gcf().savefig(sweep.folder / f"{name}.png", dpi=100, bbox_inches="tight")
            plt.close("all")
        found.append(f"{name}.png")
    return found, missing


def _markdown(found: dict[str, Any], pictures: list[str], sweep: "Sweep") -> None:
    states = [*STATUS.values(), STOPPED]
    counts = {state: sum(one["status"] == state for one in found["trials"]) for state in states}
    lines = [
        f"# {found['study']}",
        "",
        ", ".join(f"{number} {state}" for state, number in counts.items() if number),
        "",
    ]
    objectives = ", ".join(f"{direction} {name}" for name, direction in sweep.directions.items())
    lines += [f"Objectives: {objectives}.", ""]
    if found["best"]:
        lines += ["Best:", "", f"    python train.py {shlex.join(found['best']['overrides'])}", ""]
    lines += [
        f"| trial | status | {' | '.join(sweep.directions)} | epochs | overrides |",
        "|---|---|" + "---|" * (2 + len(sweep.directions)),
    ]
    for one in comparison.ranked(found["trials"]):
        values = [f"{value:.5g}" for value in one["values"]] or [""] * len(sweep.directions)
        status = f"{one['status']}{': ' + one['reason'] if one['reason'] else ''}"
        cells = [str(one["number"]), status, *values, str(one["epochs"]), f"`{' '.join(one['overrides'])}`"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", *(f"![{name}]({name})" for name in pictures)]
    (sweep.folder / "report.md").write_text("\n".join(lines) + "\n")
