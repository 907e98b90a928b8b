"""Every engine with and without pruning, a search that is killed five times, and what a second process is worth.

    python scripts/check_search.py [--only engines killed two] [--trials 24] [--kills 5] [--repeats 3] [--seed 0]

Engines: each with `search/pruner=none` and `asha`, 12 trials on the default data out of one space file. Held: all
trials ended and none failed, only ASHA gave any up, and each has its own proposal (but NSGA-II's, where children may
equal their parents).

Kills: `search=tpe` with ASHA in a process group, killed with SIGKILL at random moments and begun again by the same
command, until it ends by itself. Held: as many trials as were asked for, all ended, numbered without a gap, each with
its own proposal, and each run folder's `results.json` says the state that the study has.

Processes: the same random search with one process and then with `search.n_jobs=2`, in turns, one thread each; trials
per hour, start and report included, and the ratio of the medians. Bar: 1.7 on two cores.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
PLAIN = ["logger=none", "callbacks.picture=null", "search.study=s"]


def start(folder, words):
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, *PLAIN, f"hydra.sweep.dir={folder}"]
    with open(folder / "log.txt", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True)


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def engines(options):
    """Whether each engine ends with as many trials as were asked for."""
    held = []
    for engine in ("grid", "random", "tpe", "gp", "cmaes", "qmc", "nsga2"):
        for pruner in ("none", "asha"):
            words = [f"search={engine}", f"search/pruner={pruner}", "search.n_trials=12", "search/space=optimizers"]
            with tempfile.TemporaryDirectory() as name:
                code = start(Path(name), [*words, "trainer.max_epochs=4"]).wait()
                trials = optuna.load_study(study_name="s", storage=f"sqlite:///{name}/study.db").trials
            states = Counter(trial.state.name for trial in trials)
            different = len({json.dumps(trial.params) for trial in trials})
            held.append(
                code == 0
                and states["COMPLETE"] + states["PRUNED"] == 12
                and bool(states["PRUNED"]) == (pruner == "asha")
                and (different == 12 or engine == "nsga2")
            )
            verdict = "holds" if held[-1] else "MISSED"
            print(f"{engine}, {pruner}: {dict(states)}, {different} different proposals: {verdict}", flush=True)
    return all(held)


def killed(options):
    """Whether a search that is killed again and again ends as one that is not."""
    chance = random.Random(options.seed)
    words = ["search=tpe", "search/space=optimizers", f"search.n_trials={options.trials}", "trainer.max_epochs=9"]
    with tempfile.TemporaryDirectory() as name:
        folder, moments = Path(name), []
        for _ in range(options.kills):
            process, pause = start(folder, words), chance.uniform(5, 25)
            try:
                process.wait(pause)
            except subprocess.TimeoutExpired:
                moments.append(f"{pause:.1f} s")
                kill(process)
        code = start(folder, words).wait()
        trials = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db").trials
        states = Counter(trial.state.name for trial in trials)
        told = {t["number"]: t["status"] for t in json.loads((folder / "sweep.json").read_text())["trials"]}
        said = {n: json.loads((folder / str(n) / "results.json").read_text())["status"] for n in told}
        different = len({json.dumps(trial.params) for trial in trials})
        begun = sum("going on from" in log.read_text() for log in folder.glob("*/output.log"))
        held = (
            code == 0
            and len(moments) == options.kills
            and [trial.number for trial in trials] == list(range(options.trials))
            and states["COMPLETE"] + states["PRUNED"] == options.trials == different
            and told == said
        )
        print(
            f"killed after {', '.join(moments)}: {dict(states)}, {different} different proposals, {begun} trials gone "
            f"on with from a checkpoint, exit code {code}: {'holds' if held else 'MISSED'}",
            flush=True,
        )
        if not held:
            print((folder / "log.txt").read_text()[-2000:], told, said, file=sys.stderr)
        return held


def trials_per_hour(n_jobs, trials):
    words = ["search=random", "search/pruner=none", "search/space=optimizers", f"search.n_trials={trials}"]
    words += ["trainer.max_epochs=10", "callbacks.early_stopping.patience=99", f"search.n_jobs={n_jobs}"]
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        if code := start(Path(name), words).wait():
            sys.exit(f"the search ended with {code}: {Path(name, 'log.txt').read_text()[-2000:]}")
        return 3600 * trials / (time.perf_counter() - began)


def two(options):
    """Whether two processes get 1.7 times as many trials done as one."""
    found = {1: [], 2: []}
    for _ in range(options.repeats):
        for n_jobs, speeds in found.items():
            speeds.append(trials_per_hour(n_jobs, options.trials))
    one, both = (statistics.median(found[n_jobs]) for n_jobs in (1, 2))
    held = both / one >= 1.7
    print(
        f"one process {one:.0f} trials/h, two {both:.0f}: {both / one:.2f} times (bar 1.7), medians of "
        f"{options.repeats}: {'holds' if held else 'MISSED'}",
        flush=True,
    )
    return held


CHECKS = {"engines": engines, "killed": killed, "two": two}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(not all([CHECKS[name](options) for name in options.only]))


if __name__ == "__main__":
    main()
