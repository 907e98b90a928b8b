"""What pruning and Bayesian proposals save: training steps until the best of 32 random trials is reached.

    python scripts/compare_search.py --data-root DIR [--studies 5] [--jobs 1] [--write docs/search.md]

For each of some seeds: a random search of 32 trials without pruning, then `search=tpe search/pruner=asha` on the same
space, data and seed, in batches of 8 trials that go on with the study until one is as good as the best of the random
search, or as many steps are spent as there. The steps of all its trials, also of those that were given up, are counted
in the order in which they ended, until that one; where none is as good, the ratio is infinite. Studies that exist
already are gone on with, so that the script can be stopped and started.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

import optuna
from rich.progress import track

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- compare_search -->"
TASKS = {
    "co2": ["data=co2", "trainer.max_epochs=9"],
    "co2, 40 epochs": ["data=co2"],
    "etth1": ["data=etth1", "data.input_length=24", "trainer.max_epochs=9", "trainer.limit_train_batches=40"],
}
TASKS |= {f"{task}, space=optimizers": [*words, "search/space=optimizers"] for task, words in TASKS.items()}
FIRST_LOOK = {"co2, 40 epochs": ["search.pruner.min_resource=9"]}  # a quarter; the default looks after one epoch
SEARCHES = {"random": ["search=random", "search/pruner=none"], "tpe": ["search=tpe", "search/pruner=asha"]}
RANDOM, BATCH = 32, 8


def run(task, search, seed, n_trials, options):
    """Steps and value of so many trials of a study, in the order in which they ended."""
    name = f"{re.sub('[^a-z0-9]+', '-', task)}-{search}-{seed}"
    folder = options.folder / name
    words = [*TASKS[task], *SEARCHES[search], f"seed={seed}", f"hydra.sweep.dir={folder}", "search.study=study"]
    words += [f"search.n_trials={n_trials}", *(FIRST_LOOK.get(task, []) if search == "tpe" else [])]
    words += [f"data.root={options.data_root}"] if task.startswith("etth1") else []
    words += ["logger=none", "callbacks.picture=null", f"search.n_jobs={options.jobs}"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with open(options.folder / f"{name}.log", "a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    trials = optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db").trials
    found = []
    for trial in sorted((t for t in trials if t.state.is_finished()), key=lambda trial: trial.datetime_complete):
        path = folder / str(trial.number) / "results.json"
        result = json.loads(path.read_text()) if path.is_file() else {"steps": 0, "best": None}
        found.append((result["steps"], result["best"] if trial.state.name == "COMPLETE" else None))
    return found


def steps_to(target, trials):
    """Steps until a trial is as good; infinite where none is."""
    total = 0
    for steps, value in trials:
        total += steps
        if value is not None and value <= target:
            return total
    return math.inf


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder that holds ett/ETTh1.csv")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--studies", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--folder", type=Path, default=Path("multirun/compare_search"))
    parser.add_argument("--write", type=Path, help="a page whose part after the mark is replaced")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.data_root = options.data_root.resolve()
    lines = ["| data | seed | best of 32 random | its steps | best of tpe + asha | steps to as good | ratio |"]
    lines.append("|---" * 7 + "|")
    for task in options.tasks:
        ratios = []
        for seed in track(range(options.studies), description=task):
            plain = run(task, "random", seed, RANDOM, options)
            target = min(value for _, value in plain if value is not None)
            spent, pruned = sum(steps for steps, _ in plain), []
            while sum(steps for steps, _ in pruned) < spent and steps_to(target, pruned) == math.inf:
                pruned = run(task, "tpe", seed, len(pruned) + BATCH, options)
            needed = steps_to(target, pruned)
            best = min(value for _, value in pruned if value is not None)
            ratios.append(needed / spent)
            lines.append(f"| {task} | {seed} | {target:.5g} | {spent} | {best:.5g} | {needed:g} | {ratios[-1]:.3f} |")
        median = statistics.median(ratios)
        lines.append(
            f"| {task} | median | | | | | **{median:.3f}** ({'holds' if median <= 1 / 3 else 'missed'}: ≤ 1/3) |"
        )
    about = f"{date.today()}, `scripts/compare_search.py --studies {options.studies}`. {__doc__.splitlines()[0]}"
    text = "\n".join([MARK, about, "", *lines, ""])
    print(text)
    if options.write:
        options.write.write_text(options.write.read_text().split(MARK)[0] + text)


if __name__ == "__main__":
    main()
