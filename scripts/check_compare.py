"""How often a comparison errs: the same config twice, and a planted effect.

    python scripts/check_compare.py [--runs 96] [--seeds 8] [--comparisons 2000] [--write docs/compare.md]

A pool of short runs of one config with different seeds is trained once (co2, 3 epochs). Each comparison draws two
groups of runs from it, so that there is no difference to be found, and goes the way of `lstmopt-compare`: its pruner
looks after each seed, its statistics give the verdict. Held: at most 5 % of them say better or worse. Then the second
group gets an effect of the size that so many seeds show in four of five comparisons, `shown_from`, computed from the
spread of the pool; held: at least 80 % less two standard errors say so, with the right sign.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import optuna
from runs import rewrite

from lstmopt.compare.arm_pruner import ArmPruner
from lstmopt.compare.statistics import Effect, holm, paired_effect, shown_from, verdict

ROOT = Path(__file__).resolve().parents[1]


def pool(runs):
    """The best validation losses of so many seeds."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "-m", f"seed=range(0,{runs})", "optimizer=adam"]
        command += ["trainer.max_epochs=3", "logger=none", "callbacks.picture=null", f"hydra.sweep.dir={folder}/sweep"]
        subprocess.run(command, check=True, capture_output=True)
        found = json.loads(Path(folder, "sweep", "sweep.json").read_text())["trials"]
    return np.array([trial["value"] for trial in found])


def seeds_looked_at(base, variant):
    """So many seeds the variant gets before the pruner gives it up."""
    study = optuna.create_study()
    first, second = study.ask(), study.ask()
    for seed, value in enumerate(base):
        first.report(value, seed)
    for seed, value in enumerate(variant):
        second.report(value, seed)
        if ArmPruner().prune(study, study.trials[1]):
            return seed + 1
    return len(base)


def verdicts(values, options, effect, rng):
    """The verdicts of many comparisons whose variant has this effect."""
    found = []
    for number in range(options.comparisons):
        drawn = rng.choice(values, size=2 * options.seeds, replace=False)
        base, variant = drawn[: options.seeds], drawn[options.seeds :] + effect
        n = seeds_looked_at(base, variant)
        one = paired_effect(base[:n], variant[:n], seed=number)
        found.append(verdict(one, holm([one.p])[0], 1, "min"))
    return found


def told(held):
    return "holds" if held else "**missed**"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--write", type=Path, help="a page whose part after the mark is replaced")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    values, rng = pool(options.runs), np.random.default_rng(0)
    false = [one for one in verdicts(values, options, 0.0, rng) if one in ("better", "worse")]
    spread = math.sqrt(2) * float(np.std(values, ddof=1))  # of the difference of two runs
    planted = shown_from(Effect(options.seeds, 0.0, 0.0, 0.0, 1.0, spread), 1)
    better = verdicts(values, options, -planted, rng).count("better") / options.comparisons
    worse = verdicts(values, options, planted, rng).count("worse") / options.comparisons
    rate = len(false) / options.comparisons
    bar = 0.8 - 2 * math.sqrt(0.8 * 0.2 / options.comparisons)
    stated = f"80 % (stated), {bar:.1%} with chance"
    size = f"{planted / values.mean():.1%}"
    lines = [
        f"{date.today()}, `scripts/check_compare.py`: {options.runs} runs of co2 of 3 epochs, from which",
        f"{options.comparisons} comparisons of {options.seeds} seeds are drawn.",
        "",
        "| what | figure | bar | |",
        "|---|---|---|---|",
        f"| the same config twice: a difference is said | {rate:.1%} | at most 5 % | {told(rate <= 0.05)} |",
        f"| an effect of {size}, better: is found | {better:.1%} | {stated} | {told(better >= bar)} |",
        f"| the same, worse: is found | {worse:.1%} | {stated} | {told(worse >= bar)} |",
        "",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write:
        rewrite(options.write, "check_compare", text)
    sys.exit(not (rate <= 0.05 and min(better, worse) >= bar))


if __name__ == "__main__":
    main()
