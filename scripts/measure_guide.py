"""Test what is commonly said about training LSTMs, and write docs/guide.md.

    python scripts/measure_guide.py --data-root DIR [--seeds 5] [--only NAME ...] [--write docs/guide.md]

Every claim is one or more comparisons by `lstmopt-compare`: a base and variants with the same seeds, on three data sets
(those of docs/claims.yaml, or the claim's own). The paired effects, as differences of logarithms, are pooled over sets
and seeds and tested by the permutation test that swaps base and variant within a seed of a set; p is adjusted for the
number of tests (Holm). A claim is supported where each of its tests shows the direction that it names, refuted where
one shows the opposite, and otherwise not shown. Comparisons lie in `--folder` (guide/) and go on where they were.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
import yaml
from rich.progress import track

from lstmopt.compare.statistics import holm, paired_effect

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ROOT / "docs" / "claims.yaml"
MARK = "<!-- measure_guide -->"
COMMON = ["callbacks.picture=null", "search/pruner=none"]


@dataclass
class Test:
    """One variant against the base.

    Attributes:
        variant: what is typed for it.
        metric: `loss`, `time_to_base`, `seconds`, `memory`, or `test`.
        less: whether the claim says that the variant has less of it, or more.
        effects: log of variant ÷ base, by data set.
    """

    variant: str
    metric: str
    less: bool
    effects: dict[str, list[float]] = field(default_factory=dict)
    p: float = 1.0
    adjusted: float = 1.0

    @property
    def pooled(self):
        return np.array([effect for effects in self.effects.values() for effect in effects])

    @property
    def verdict(self):
        mean = float(np.mean(self.pooled))
        if self.adjusted > 0.05:
            return "not shown"
        return "supported" if (mean < 0) == self.less else "refuted"


def compared(claim, name, words, variants, options):
    """The folder of a comparison, after it."""
    folder = options.folder / f"{claim}-{name}"
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *words, *COMMON, f"hydra.sweep.dir={folder}"]
    command += [
        "search.study=study",
        "--variants",
        *variants,
        "--seeds",
        str(options.seeds),
        "--jobs",
        str(options.jobs),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": str(ROOT)}
    with open(folder / "log.txt", "a") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode
    if code:
        raise RuntimeError(f"{' '.join(command)}: {(folder / 'log.txt').read_text()[-1000:]}")
    return folder


def figures(folder, number, metric, seeds):
    """A metric of each seed of a variant; infinite where it failed."""
    found = []
    for k in range(seeds):
        path = folder / str(number) / str(k) / "results.json"
        result = json.loads(path.read_text()) if path.is_file() else {"status": "failed"}
        if result["status"] != "completed":
            found.append(math.inf)
        elif metric == "test":
            found.append(result["metrics"][next(m for m in ("test/loss", "test/mse") if m in result["metrics"])])
        else:
            key = {"loss": "best", "seconds": "train_seconds", "memory": "peak_memory_mb"}[metric]
            found.append(result[key])
    return np.array(found)


def measure(name, claim, sets, options):
    """The tests of a claim with their effects."""
    tests = [Test(one["variant"], one.get("metric", "loss"), one["less"]) for one in claim["tests"]]
    variants = list(dict.fromkeys(test.variant for test in tests))
    for data in claim.get("sets", list(sets)):
        words = [word.format(root=options.data_root) for word in [*sets[data], *claim.get("base", [])]]
        folder = compared(name, data, words, variants, options)
        arms = json.loads((folder / "compare.json").read_text())["arms"]
        for test in tests:
            number = 1 + variants.index(test.variant)
            if test.metric == "time_to_base":
                effects = [arms[number]["time_to_base"] or math.inf]
            else:
                both = [figures(folder, n, test.metric, options.seeds) for n in (number, 0)]
                effects = both[0] / both[1]
            test.effects[data] = [float(min(5.0, max(-5.0, math.log(ratio)))) for ratio in effects]
    for test in tests:
        pooled = test.pooled
        test.p = paired_effect(np.zeros(len(pooled)), pooled).p
    return tests


def lines_of(name, claim, tests):
    """The part of the page about a claim."""
    verdicts = [test.verdict for test in tests]
    whole = "refuted" if "refuted" in verdicts else "supported" if set(verdicts) == {"supported"} else "not shown"
    lines = [f"### {claim['claim']}", "", f"**{whole}.** {claim.get('note', '')}".strip(), ""]
    sets = list(tests[0].effects)
    lines += [f"| variant | measured | {' | '.join(sets)} | all | p | |", "|---" * (len(sets) + 5) + "|"]
    for test in tests:
        by_set = [f"{100 * math.expm1(np.mean(values)):+.1f} %" for values in test.effects.values()]
        cells = [f"`{test.variant}`", test.metric.replace("_", " "), *by_set]
        cells += [f"{100 * math.expm1(np.mean(test.pooled)):+.1f} %", f"{test.adjusted:.2g}", test.verdict]
        lines.append(f"| {' | '.join(cells)} |")
    base = " ".join(claim.get("base", [])) or "the defaults"
    return [*lines, "", f"Base: `{base}`.", ""]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="names in docs/claims.yaml")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("guide"))
    parser.add_argument("--write", type=Path, help="a page whose part after the mark is replaced")
    options = parser.parse_args()
    options.folder, options.data_root = options.folder.resolve(), options.data_root.resolve()
    plan = yaml.safe_load(CLAIMS.read_text())
    claims = {name: claim for name, claim in plan["claims"].items() if not options.only or name in options.only}
    found = {name: measure(name, claim, plan["sets"], options) for name, claim in track(claims.items(), "claims")}
    everything = [test for tests in found.values() for test in tests]
    for test, adjusted in zip(everything, holm([test.p for test in everything]), strict=True):
        test.adjusted = adjusted
    about = f"{date.today()}, `scripts/measure_guide.py --seeds {options.seeds}`, {os.cpu_count()} cores; "
    about += f"{len(everything)} tests of {len(found)} claims."
    text = "\n".join(
        [about, "", *(line for name, tests in found.items() for line in lines_of(name, claims[name], tests))]
    )
    print(text)
    if options.write:
        page = options.write.read_text()
        options.write.write_text(f"{page.split(MARK)[0]}{MARK}\n{text}")


if __name__ == "__main__":
    main()
