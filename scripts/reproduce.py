"""Run the documented experiments over seeds, and write what came out beside the published figures.

    python scripts/reproduce.py --data-root DIR [--only adding_600 jsb] [--seeds 3] [--jobs 1] [--write docs/results.md]

Each is `python train.py experiment=NAME seed=K` and where the data are, nothing else: the model is the one of the best
validation, and the test set is read once, after the training. Runs lie in `--folder`, and those that are complete there
are not repeated, and shown with the day and the versions that made them; with `--jobs` of two and more each run has one
thread. DIR holds ett/, mnist/, polymusic/,
tinyshakespeare/, ucr/ and, where you have it, ptb/. What an experiment needs and this machine lacks is said in its row.
Rows of experiments that `--only` leaves out stay on the page as they are.
"""

import re
import statistics
from concurrent.futures import ThreadPoolExecutor

import torch
from rich.progress import Progress
from runs import parser, program, provenance, record, results, rewrite

SEEDS = 3  # fewer show no verdict
# metric, `min` or `max`, what the project asks of itself, figures published for comparison
RECIPES = {
    "etth1_96": ("test/mse", "min", 0.358, "GRU 1.135, DLinear .381, PatchTST .375, SegRNN .351"),
    "etth1_24": ("test/mse", "min", 0.288, "LSTMa .650, Informer .577"),
    "jsb": ("test/nll", "min", 8.10, "LSTM 8.45, TCN 8.10"),
    "mnist_rows": ("test/accuracy", "max", 0.991, "pixel by pixel: LSTM .872, TCN .990"),
    "mnist_pixels": ("test/accuracy", "max", 0.98, "LSTM .872, TCN .990"),
    "char_shakespeare": ("val/loss", "min", 1.48, "nanoGPT on a CPU 1.88"),
    "adding_600": ("test/mse", "min", 1e-3, "LSTM .164, GRU 5.3e-5"),
    "copy_1000": ("test/loss", "min", 0.0197, "LSTM .0204, GRU .0197, TCN 3.5e-5"),
    "italy_power": ("test/accuracy", "max", 0.966, "LSTM-FCN .962"),
    "arrow_head": ("test/accuracy", "max", 0.80, "LSTM-FCN .897, 1-NN DTW .663"),
    "basic_motions": ("test/accuracy", "max", 1.0, ""),
    "ptb_small": ("test/perplexity", "min", 115.9, "Zaremba et al. 115"),
    "awd_ptb": ("test/perplexity", "min", 58.8, "AWD-LSTM 58.8"),
}


def command(name, root):
    """What is typed."""
    if name in ("adding_600", "copy_1000"):
        return [f"experiment={name}"]
    where = f"data.path={root}/tinyshakespeare/input.txt" if name == "char_shakespeare" else f"data.root={root}"
    return [f"experiment={name}", where]


def lacking(name, root):
    """What it needs and this machine lacks; empty where it can run."""
    lacks = []
    if "ptb" in name:
        lacks += [] if (root / "ptb" / "ptb.train.txt").is_file() else ["ptb/ptb.train.txt"]
    if name == "awd_ptb" and not torch.cuda.is_available():
        lacks.append("a GPU")
    return " and ".join(lacks)


def run(name, seed, options):
    """The folder of one run, which is made where it is not there."""
    folder = options.folder / name / str(seed)
    done = results(folder)
    if done is None or done["status"] != "completed":
        words = [*command(name, options.data_root), f"seed={seed}", f"hydra.run.dir={folder}"]
        program("train.py", words, folder / "log.txt", 1 if options.jobs > 1 else None)
        record(folder, options.jobs)
    return folder


def row(name, folders, options):
    """A line of the table, about the completed runs in these folders."""
    done = {folder: result for folder in folders if (result := results(folder)) and result["status"] == "completed"}
    found = list(done.values())
    metric, mode, bar, published = RECIPES[name]
    bar_cell = f"{'≤' if mode == 'min' else '≥'} {bar:g}"
    if not found:
        lacks = lacking(name, options.data_root)
        why = f"not run: needs {lacks}" if lacks else "not run"
        return f"| `{name}` | {metric} | {why} | 0 | {bar_cell} | | {published} | | | | |"
    values = [result["metrics"][metric] for result in found]
    mean = statistics.mean(values)
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    held = mean <= bar if mode == "min" else mean >= bar
    seconds = statistics.mean(result["train_seconds"] for result in found)
    memory = max(result["peak_memory_mb"] for result in found)
    cells = [f"`{name}`", metric, f"{mean:.4g}{spread}", f"{len(found)}", bar_cell]
    asked = max(SEEDS, options.seeds)
    few = f"{len(found)} of {asked} seeds" if len(found) < asked else ""
    verdict = few or "holds" if held else ", ".join(word for word in ("**missed**", few) if word)
    cells += [verdict, published, f"{found[0]['parameters']:,}", f"{seconds:.0f}"]
    return f"| {' | '.join([*cells, f'{memory:.0f}', provenance(done)])} |"


def earlier(page):
    """The lines of a page's table by experiment."""
    lines = page.read_text().splitlines() if page and page.is_file() else []
    return {match[1]: line for line in lines if (match := re.match(r"\| `(\w+)` \|", line))}


def main():
    arguments = parser(__doc__, SEEDS, "reproduced")
    arguments.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    options = arguments.parse_args()
    possible = [name for name in options.only if not lacking(name, options.data_root)]
    pairs = [(name, seed) for name in possible for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool, Progress() as progress:
        task = progress.add_task("runs", total=len(pairs))
        waiting = {pair: pool.submit(run, *pair, options) for pair in pairs}
        for future in waiting.values():
            future.add_done_callback(lambda _: progress.advance(task))
        found = {pair: future.result() for pair, future in waiting.items()}
    rows = earlier(options.write)
    for name in RECIPES:
        if name in options.only or name not in rows:
            rows[name] = row(name, [folder for (one, _), folder in found.items() if one == name], options)
    lines = ["| experiment | metric | mean ± std | seeds | bar | | published | parameters | seconds | MB | measured |"]
    lines += ["|---" * 11 + "|", *(rows[name] for name in RECIPES)]
    text = "\n".join(["`scripts/reproduce.py`; the last column has when and with what each was measured.", "", *lines])
    print(text)
    if options.write:
        rewrite(options.write, "reproduce", text)


if __name__ == "__main__":
    main()
