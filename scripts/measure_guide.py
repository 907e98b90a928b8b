"""Test what is commonly said about training LSTMs, and write docs/guide.md.

    python scripts/measure_guide.py --data-root DIR [--seeds 5] [--only NAME ...] [--jobs 1] [--write docs/guide.md]

Every claim of scripts/claims.yaml is one or more tests, each a variant beside a base with the same seeds on three data
sets, by `lstmopt-compare` (searches: by `-m search=...`). The paired effects, logarithms of variant ÷ base, are divided
by their root mean square in a set, so that no set outweighs the others, and tested over sets and seeds by the
permutation test that swaps base and variant within a seed of a set; p is adjusted for the number of tests of a claim
(Holm), as `lstmopt-compare` does for its variants. A run that diverges has the largest effect there is, e^5. A claim
is supported where each of its tests shows the direction that it names, refuted where one shows the opposite, and
otherwise not shown. What was run lies in `--folder` and is not run again.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from rich.progress import track
from runs import about, parser, program, record, results, rewrite

from lstmopt.compare.arms import read_curve
from lstmopt.compare.statistics import ALPHA, holm, paired_effect

CLAIMS = Path(__file__).with_name("claims.yaml")
MOST = 5.0  # of a logarithm
MEASURED = {
    "loss": "validation loss",
    "test": "test loss",
    "seconds": "training time",
    "time_to_both": "time to the worse of both losses",
    "memory": "peak memory",
    "search": "best validation loss",
}
TRIALS = 12
SHORT = ["trainer.limit_train_batches=20", "trainer.max_epochs=3", f"search.n_trials={TRIALS}", "search/pruner=none"]
SHORT += ["callbacks.picture=null", "logger=none", "search.report=false"]
SPACE = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.hidden_size=int(interval(16,64))"]
SPACE += ["data.batch_size=int(interval(16,64))"]
GRID = ["optimizer.lr=0.0003,0.003,0.03", "model.hidden_size=24,48", "data.batch_size=24,48"]


@dataclass
class Test:
    """One variant against the base.

    Attributes:
        claim: its name.
        variant: what is typed for it.
        of: what is compared, a key of `MEASURED`.
        less: whether the claim says that the variant has less of it, or more.
        effects: log of variant ÷ base, by data set and seed.
        raw: p-value of the test by itself.
        p: the same, adjusted for the number of tests of the claim.
        folders: of the runs.
    """

    claim: str
    variant: str
    of: str
    less: bool
    effects: dict[str, list[float]] = field(default_factory=dict)
    raw: float = 1.0
    p: float = 1.0
    folders: set[Path] = field(default_factory=set)

    @property
    def pooled(self):
        """The effects of all sets, each divided by the root mean square of its set, which no swap changes."""
        scaled = []
        for effects in self.effects.values():
            scale = float(np.sqrt(np.mean(np.square(effects))))
            scaled += [effect / scale if scale else 0.0 for effect in effects]
        return np.array(scaled)

    @property
    def verdict(self):
        if self.p > ALPHA:
            return "not shown"
        return "supported" if (float(np.mean(self.pooled)) < 0) == self.less else "refuted"


def value(run, of):
    """What is compared, of a run in compare.json; infinite where it failed."""
    if run is None:
        return math.inf
    if of == "test":
        return run["metrics"]["test/loss"]
    return run[{"loss": "value", "seconds": "seconds", "memory": "peak_memory_mb"}[of]]


def times_to_both(folders):
    """Seconds of training until each of two runs is as good as the worse of them at its best.

    Time to the base's own best would favour the base: it always comes there, and an equal variant half of the time.
    """
    curves = [read_curve(folder, "val/loss") for folder in folders]
    worse = max(float(values.min()) for _, values in curves)
    done = [results(folder) for folder in folders]
    return [
        run["train_seconds"] * float(steps[np.flatnonzero(values <= worse)[0]] + 1) / run["steps"]
        for (steps, values), run in zip(curves, done, strict=True)
    ]


def logarithm(variant, base):
    """log(variant ÷ base) within ± MOST."""
    if math.isinf(variant) or math.isinf(base):
        return 0.0 if variant == base else math.copysign(MOST, variant - base)
    return min(MOST, max(-MOST, math.log(variant / base)))


def compared(claim, name, words, tests, options):
    """Effects of the tests of a claim on a set, from one comparison."""
    folder = options.folder / f"{claim}-{name}"
    variants = list(dict.fromkeys(test.variant for test in tests))
    if not (folder / "compare.json").is_file():
        typed = [*words, "callbacks.picture=null", "search/pruner=none", f"hydra.sweep.dir={folder}"]
        typed += ["search.study=study", "--variants", *variants, "--seeds", str(options.seeds)]
        program("scripts/compare.py", [*typed, "--jobs", str(options.jobs)], options.folder / f"{claim}-{name}.log", 1)
        record(folder, options.jobs)
    arms = json.loads((folder / "compare.json").read_text())["arms"]
    by_seed = [{run["number"]: run for run in arm["runs"]} for arm in arms]
    for test in tests:
        number = 1 + variants.index(test.variant)
        test.effects[name] = []
        test.folders.add(folder)
        for k in range(options.seeds):
            both = [by_seed[number].get(k), by_seed[0].get(k)]
            if test.of == "time_to_both" and None not in both:
                pair = times_to_both([folder / str(number) / str(k), folder / "0" / str(k)])
            else:
                pair = [value(run, test.of) for run in both]
            test.effects[name].append(logarithm(*pair))


def best_of_search(words, folder, log, seed, jobs):
    """The best value of a search."""
    if not all(results(folder / str(number)) for number in range(TRIALS)):
        typed = ["-m", *words, *SHORT, *(GRID if "search=grid" in words else SPACE), f"seed={seed}"]
        typed += [f"search.n_jobs={jobs}", f"hydra.sweep.dir={folder}", "search.study=study"]
        program("train.py", typed, log, 1)
        record(folder, jobs)
    found = [results(folder / str(number)) for number in range(TRIALS)]
    return min(trial["best"] for trial in found if trial["status"] == "completed")


def searched(name, words, base, tests, options):
    """Effects of searches beside a base search on a set."""
    found = {}
    for kind in [*base, *(test.variant for test in tests)]:
        engine = kind.split()[0].removeprefix("search=")
        for seed in range(options.seeds):
            folder = options.folder / f"search-{engine}-{name}-{seed}"
            for test in tests:
                test.folders.add(folder)
            found[kind, seed] = best_of_search(
                [*words, *kind.split()], folder, folder.with_suffix(".log"), seed, options.jobs
            )
    for test in tests:
        test.effects[name] = [logarithm(found[test.variant, k], found[base[0], k]) for k in range(options.seeds)]


def measure(name, plan, options):
    """The tests of a claim with their effects."""
    claim = plan["claims"][name]
    tests = [Test(name, **one) for one in claim["tests"]]
    for data in claim.get("sets", plan["default"]):
        words = ["optimizer=adam", *(word.format(root=options.data_root) for word in plan["sets"][data])]
        base = claim.get("base", [])
        if tests[0].of == "search":
            searched(data, [word for word in words if not word.startswith("trainer")], base, tests, options)
        else:
            kept = {word.partition("=")[0] for word in base}
            words = [word for word in words if word.partition("=")[0] not in kept]
            compared(claim.get("runs", name), data, [*words, *base], tests, options)
    raw = [paired_effect(np.zeros(len(test.pooled)), test.pooled).p for test in tests]
    for test, p, adjusted in zip(tests, raw, holm(raw), strict=True):
        test.raw, test.p = p, adjusted
    return tests


def shown(effects):
    """Median effect of a set, and how many of it are as large as can be."""
    lost = sum(abs(effect) >= MOST for effect in effects)
    middle = float(np.median(effects))
    words = f"{math.expm1(middle):+.1%}" if abs(middle) < MOST else ("never" if middle > 0 else "base never")
    return f"{words} ({lost} of {len(effects)} never)" if 0 < lost < len(effects) and abs(middle) < MOST else words


def lines_of(claim, tests):
    """The part of the page about a claim."""
    verdicts = {test.verdict for test in tests}
    whole = "refuted" if "refuted" in verdicts else "supported" if verdicts == {"supported"} else "not shown"
    base = " ".join(f"`{word}`" for word in claim.get("base", [])) or "the defaults with `optimizer=adam`"
    lines = [f"### {claim['claim']}", "", f"**{whole}.** {claim.get('note', '')}".strip() + f" Base: {base}.", ""]
    lines += [f"| variant | of | {' | '.join(tests[0].effects)} | p | |", "|---" * (len(tests[0].effects) + 4) + "|"]
    for test in tests:
        cells = [f"`{test.variant}`", MEASURED[test.of], *map(shown, test.effects.values())]
        lines.append(f"| {' | '.join([*cells, f'{test.p:.2g}', test.verdict])} |")
    return whole, [*lines, ""]


def draw(tests, path):
    """All effects, a row for each test and a dot for each seed of a set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.3 * len(tests) + 1), layout="constrained")
    axes = figure.subplots()
    colours = {name: f"C{k}" for k, name in enumerate(dict.fromkeys(name for test in tests for name in test.effects))}
    for number, test in enumerate(tests):
        for name, effects in test.effects.items():
            axes.plot(np.exp(effects), [number] * len(effects), "o", color=colours[name], alpha=0.5, markersize=4)
        middle = float(np.median([effect for effects in test.effects.values() for effect in effects]))
        axes.plot(math.exp(middle), number, "k|", markersize=12)
    for name, colour in colours.items():
        axes.plot([], [], "o", color=colour, label=name)
    axes.axvline(1, color="0.7", zorder=0)
    axes.set_xscale("log")
    axes.set_xlabel("variant ÷ base, of each seed; the bar is the median")
    axes.set_yticks(range(len(tests)), [f"{test.claim}: {test.variant}, {MEASURED[test.of]}" for test in tests])
    axes.tick_params(axis="y", labelsize="x-small")
    axes.invert_yaxis()
    axes.legend(fontsize="small", ncols=len(colours), loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(path, dpi=110)


def main():
    plan = yaml.safe_load(CLAIMS.read_text())
    arguments = parser(__doc__, 5, "guide")
    arguments.add_argument("--only", nargs="+", choices=plan["claims"], default=list(plan["claims"]))
    options = arguments.parse_args()
    found = {name: measure(name, plan, options) for name in track(options.only, "claims")}
    everything = [test for tests in found.values() for test in tests]
    page = sum(adjusted <= ALPHA for adjusted in holm([test.raw for test in everything]))
    shown_alone = sum(test.p <= ALPHA for test in everything)
    parts = {name: lines_of(plan["claims"][name], tests) for name, tests in found.items()}
    folders = set().union(*(test.folders for test in everything))
    head = [about(f"scripts/measure_guide.py --seeds {options.seeds}", folders), ""]
    head += [
        f"{len(everything)} tests of {len(found)} claims; {shown_alone} show a direction, {page} also after Holm for"
    ]
    head += ["all tests on this page.", "", "| claim | verdict |", "|---|---|"]
    head += [f"| {plan['claims'][name]['claim']} | {whole} |" for name, (whole, _) in parts.items()]
    text = "\n".join([*head, "", *(line for _, lines in parts.values() for line in lines)])
    print(text)
    if options.write:
        rewrite(options.write, "measure_guide", text)
        draw(everything, options.write.with_suffix(".png"))


if __name__ == "__main__":
    main()
