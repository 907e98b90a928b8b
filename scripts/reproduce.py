"""Run the documented experiments over seeds, and write what came out beside the published figures.

    python scripts/reproduce.py --data-root DIR [--only adding_600 jsb] [--seeds 3] [--jobs 1] [--write docs/results.md]

Each is `python train.py experiment=NAME seed=K` and where the data are, nothing else: the model is the one of the best
validation, and the test set is read once, after the training. Runs lie in `--folder` (reproduced/), and those that are
complete there are not repeated. DIR holds ett/, mnist/, polymusic/, tinyshakespeare/ and ucr/; an experiment whose data
are missing is left out and said to be.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from rich.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
MARK = "<!-- reproduce -->"
# metric, `min` or `max`, what the project asks of itself, figures published for comparison
RECIPES = {
    "etth1_96": ("test/mse", "min", 0.358, "GRU 1.135, DLinear .381, PatchTST .375, SegRNN .351"),
    "etth1_24": ("test/mse", "min", 0.288, "LSTMa .650, Informer .577"),
    "jsb": ("test/nll", "min", 8.10, "LSTM 8.45, TCN 8.10"),
    "mnist_rows": ("test/accuracy", "max", 0.991, "LSTM .872 and TCN .990, pixel by pixel"),
    "mnist_pixels": ("test/accuracy", "max", 0.980, "LSTM .872, TCN .990"),
    "char_shakespeare": ("val/loss", "min", 1.48, "nanoGPT on a CPU 1.88"),
    "adding_600": ("test/mse", "min", 1e-3, "LSTM .164, GRU 5.3e-5"),
    "copy_1000": ("test/loss", "min", None, "LSTM .0204, TCN 3.5e-5"),
    "italy_power": ("test/accuracy", "max", 0.966, "LSTM-FCN .962"),
    "arrow_head": ("test/accuracy", "max", 0.80, "LSTM-FCN .897, 1-NN DTW .663"),
    "basic_motions": ("test/accuracy", "max", 1.0, "-"),
}
PATHS = {"char_shakespeare": "data.path={root}/tinyshakespeare/input.txt"}


def command(name, seed, options):
    """What is typed."""
    words = [f"experiment={name}", f"seed={seed}"]
    if name in PATHS:
        words.append(PATHS[name].format(root=options.data_root))
    elif name not in ("adding_600", "copy_1000"):
        words.append(f"data.root={options.data_root}")
    return words


def run(name, seed, options):
    """The results of one run; what it said where it failed."""
    folder = options.folder / name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, str(ROOT / "train.py"), *command(name, seed, options), f"hydra.run.dir={folder}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(folder / "log.txt", "a") as log:
        code = subprocess.run(words, stdout=log, stderr=log, env=environment).returncode
    if code:
        return (folder / "log.txt").read_text().strip().splitlines()[-1][:160]
    return json.loads((folder / "results.json").read_text())


def row(name, found):
    """A line of the table, and whether it holds."""
    metric, mode, bar, published = RECIPES[name]
    values = [result["metrics"][metric] for result in found]
    mean = statistics.mean(values)
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    held = bar is None or (mean <= bar if mode == "min" else mean >= bar)
    sign = "≤" if mode == "min" else "≥"
    seconds = statistics.mean(result["train_seconds"] for result in found)
    memory = max(result["peak_memory_mb"] for result in found)
    cells = [f"`{name}`", metric, f"{mean:.4g}{spread}", len(found), "" if bar is None else f"{sign} {bar:g}"]
    cells += ["" if bar is None else "holds" if held else "**missed**", published]
    cells += [f"{found[0]['parameters']:,}", f"{seconds:.0f}", f"{memory:.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--folder", type=Path, default=Path("reproduced"))
    parser.add_argument("--write", type=Path, help="a page whose part after the mark is replaced")
    options = parser.parse_args()
    options.data_root, options.folder = options.data_root.resolve(), options.folder.resolve()
    pairs = [(name, seed) for name in options.only for seed in range(options.seeds)]
    found = {name: {} for name in options.only}
    with ThreadPoolExecutor(options.jobs) as pool, Progress() as progress:
        task = progress.add_task("runs", total=len(pairs))
        waiting = {pair: pool.submit(run, *pair, options) for pair in pairs}
        for (name, seed), future in waiting.items():
            found[name][seed] = future.result()
            progress.advance(task)
    lines = ["| experiment | metric | mean | seeds | bar | | published | parameters | seconds | MB |"]
    lines.append("|---" * 10 + "|")
    left_out = []
    for name, results in found.items():
        failed = [said for said in results.values() if isinstance(said, str)]
        if failed:
            left_out.append(f"`{name}`: {failed[0]}")
        else:
            lines.append(row(name, list(results.values())))
    versions = next((r["versions"] for rs in found.values() for r in rs.values() if isinstance(r, dict)), {})
    about = f"{date.today()}, `python train.py experiment=NAME seed=0...{options.seeds - 1}`, {platform.machine()}, "
    about += f"{os.cpu_count()} cores, {', '.join(f'{name} {value}' for name, value in versions.items())}."
    text = "\n".join([about, "", *lines, "", *(f"Left out: {line}" for line in left_out), ""])
    print(text)
    if options.write:
        page = options.write.read_text()
        options.write.write_text(f"{page.split(MARK)[0]}{MARK}\n{text}")


if __name__ == "__main__":
    main()
