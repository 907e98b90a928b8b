"""What the defaults are worth: wall time to the best validation loss of plain Adam, on five tasks.

    python scripts/compare_defaults.py --data-root DIR [--seeds 5] [--jobs 1] [--write docs/defaults.md]

Plain is Adam at 0.001 with a static rate, no clipping, torch's initialisation, float32. Beside it, by
`lstmopt-compare` on the same seeds: the defaults as they are, and what else could be default. A figure is the seconds
of training until the plain run's best validation loss is reached, in units of what the plain run needed for it: the
median over seeds, twice the length of the whole run where it never is. Bar: a geometric mean over tasks of 0.6. A
second table has the best validation losses of the whole runs.
"""

import json
import statistics

from rich.progress import track
from runs import about, parser, program, record, rewrite

PLAIN = ["optimizer=adam", "optimizer.lr=0.001", "gradient_clip=none", "lr_scheduler=none", "precision=fp32"]
PLAIN += ["model.forget_bias=null", "model.orthogonal=false"]
INITIALISED = "model.forget_bias=1.0 model.orthogonal=true"
SCHEDULE_FREE = "optimizer=schedule_free gradient_clip=norm"
VARIANTS = {
    "the defaults: schedule-free 0.01, initialised": f"{SCHEDULE_FREE} optimizer.lr=0.01 {INITIALISED}",
    "the same, 0.02": f"{SCHEDULE_FREE} optimizer.lr=0.02 {INITIALISED}",
    "the same, 0.03": f"{SCHEDULE_FREE} optimizer.lr=0.03 {INITIALISED}",
    "the same, 0.01, not initialised": f"{SCHEDULE_FREE} optimizer.lr=0.01",
    "the same, 0.01, batch of 32": f"{SCHEDULE_FREE} optimizer.lr=0.01 {INITIALISED} data.batch_size=32",
    "Adam 0.003, initialised": f"optimizer.lr=0.003 gradient_clip=norm {INITIALISED}",
    "Adam 0.003, one-cycle": "optimizer.lr=0.003 gradient_clip=norm lr_scheduler=one_cycle",
    "Adam 0.01, one-cycle": "optimizer.lr=0.01 gradient_clip=norm lr_scheduler=one_cycle",
}
TASKS = {
    "co2": ["data=co2", "trainer.max_epochs=15"],
    "mackey": ["data=mackey_glass", "trainer.max_epochs=6"],
    "etth1": ["data=etth1", "data.root={root}", "data.target=[OT]", "trainer.max_epochs=8"]
    + ["trainer.limit_train_batches=0.3", "trainer.limit_val_batches=0.4", "trainer.limit_test_batches=1"],
    "jsb": ["data=polymusic", "data.root={root}", "data.batch_size=16", "trainer.max_epochs=15"],
    "text": ["data=text", "data.path={root}/tinyshakespeare/input.txt", "trainer.max_epochs=6"]
    + ["trainer.limit_train_batches=0.2", "trainer.limit_val_batches=0.2", "trainer.limit_test_batches=1"],
}


def ratios(task, options):
    """Medians of each variant, in units of the plain run's: the time to that one's best loss, and the best loss."""
    folder = options.folder / task
    if not (folder / "compare.json").is_file():
        words = [word.format(root=options.data_root) for word in TASKS[task]] + PLAIN
        words += ["callbacks.picture=null", "search/pruner=none", f"hydra.sweep.dir={folder}", "search.study=study"]
        words += ["--variants", *VARIANTS.values(), "--seeds", str(options.seeds), "--jobs", str(options.jobs)]
        program("scripts/compare.py", words, options.folder / f"{task}.log", 1)
        record(folder, options.jobs)
    base, *others = json.loads((folder / "compare.json").read_text())["arms"]
    plain = {run["number"]: run for run in base["runs"]}
    times, losses = [], []
    for arm in others:
        runs = {run["number"]: run for run in arm["runs"]}
        times.append([])
        for number, one in plain.items():
            reached = runs[number]["seconds_to_base"] if number in runs else None
            times[-1].append((2 * one["seconds"] if reached is None else reached) / one["seconds_to_base"])
        losses.append([run["value"] / plain[number]["value"] for number, run in runs.items()])
    return [[statistics.median(values) for values in found] for found in (times, losses)]


def table(head, found):
    """A row for each variant, a column for each task, and their geometric mean."""
    lines = [f"| {head} | {' | '.join(TASKS)} | geometric mean |", "|---" * (len(TASKS) + 2) + "|"]
    for name, *row in zip(VARIANTS, *found, strict=True):
        cells = [f"{value:.2f}" for value in [*row, statistics.geometric_mean(row)]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main():
    options = parser(__doc__, 5, "defaults").parse_args()
    times, losses = zip(*[ratios(task, options) for task in track(TASKS, "tasks")], strict=True)
    lines = [*table("time to plain's best", times), "", *table("best validation loss ÷ plain's", losses)]
    head = about(f"scripts/compare_defaults.py --seeds {options.seeds}", [options.folder / task for task in TASKS])
    text = "\n".join([head, "", *lines])
    print(text)
    if options.write:
        rewrite(options.write, "compare_defaults", text)


if __name__ == "__main__":
    main()
