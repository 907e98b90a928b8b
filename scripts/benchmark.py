"""All benchmarks in one run, with the roofs of the machine: a Markdown table and JSON.

    python scripts/benchmark.py --data-root DIR [--rows overhead windows ...] [--write docs/performance.md]

Every row is a script of `scripts/benchmarks/`, run in a process of its own, which measures its contestants in turns
and gives medians. The roofs (matrix products in float32 and bfloat16, copying memory, an empty optimizer step) are
measured before and after, on one thread. Rows that miss their bar are shown like those that hold it. With `--json`,
rows of scripts that were not run again stay, under the machine, the date and the roofs of their own run.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "benchmarks"
ROWS = ["overhead", "windows", "kernel", "ragged", "start", "threads", "trials", "recompute", "scale"]
ROWS += ["throughput", "reading"]
ROWS += ["gpu"] if torch.cuda.is_available() else []
BY_NAME = ["cost"]  # needs the repository's history
MARK = "<!-- measured -->"


def best_of(function, rounds=7):
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def roofs():
    """What one thread of this machine can do at most."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    short_a, short_b = a.bfloat16(), b.bfloat16()
    source, target = torch.randn(2**24), torch.empty(2**24)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def steps():
        for _ in range(200):
            optimizer.zero_grad()
            weight.sum().backward()
            optimizer.step()

    return {
        "sgemm, GFLOP/s": 2 * 1024**3 / best_of(lambda: a @ b) / 1e9,
        "bf16 gemm, GFLOP/s": 2 * 1024**3 / best_of(lambda: short_a @ short_b) / 1e9,
        "memcpy, GB/s": 2 * source.nbytes / best_of(lambda: target.copy_(source)) / 1e9,
        "empty step, µs": 1e6 * best_of(steps) / 200,
    }


def machine():
    """The machine in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    found = f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    return found + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")


def measured(name, options):
    """The rows that a script gives; a script that fails is told as such."""
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    command += ["--repeats", str(options.repeats)] if options.repeats else []
    if name in ("throughput", "cost"):
        command += ["--data-root", options.data_root]
    print(f"== {name}", file=sys.stderr, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return [{"row": f"{name} failed", "ratio": float("nan"), "bar": 0.0, "better": "higher", "held": False}]
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(rows):
    lines = ["| what | ratio | bar | | medians | repeats |", "|---|---|---|---|---|---|"]
    for one in rows:
        medians = "; ".join(f"{name}: {value:.4g}" for name, value in one.get("medians", {}).items())
        sign = "≥" if one["better"] == "higher" else "≤"
        verdict = "holds" if one["held"] else "**missed**"
        cells = [one["row"], f"{one['ratio']:.3g}", f"{sign} {one['bar']}", verdict, medians, one.get("repeats", "")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def page(scripts):
    """A table for each run that rows are left of, the latest first."""
    runs = {}
    for name in ROWS + BY_NAME:
        if name in scripts:
            runs.setdefault(json.dumps(scripts[name]["run"]), []).extend(scripts[name]["rows"])
    parts = []
    for run, rows in sorted(runs.items(), key=lambda item: json.loads(item[0])["when"], reverse=True):
        facts = json.loads(run)
        described = "; ".join(f"{name} {value:.3g}" for name, value in facts["roofs"].items())
        parts.append(f"{facts['when']}, {facts['machine']}.\n\nRoofs, one thread: {described}.\n\n{table(rows)}\n")
    return "\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder that holds ett/ETTh1.csv")
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS + BY_NAME)
    parser.add_argument("--repeats", type=int, help="of every row, instead of what each has by default")
    parser.add_argument("--write", type=Path, help="a page whose part after the mark is replaced")
    parser.add_argument("--json", type=Path, help="where the figures go as JSON, and those of earlier runs stay")
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    before = roofs()
    measured_rows = {name: measured(name, options) for name in options.rows}
    after = roofs()
    roof = {name: statistics.mean((before[name], after[name])) for name in before}
    run = {"when": f"{datetime.now():%Y-%m-%d %H:%M}", "machine": machine(), "roofs": roof}
    kept = json.loads(options.json.read_text()) if options.json and options.json.is_file() else {}
    scripts = kept | {name: {"run": run, "rows": rows} for name, rows in measured_rows.items()}
    text = page(scripts)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(scripts, indent=1) + "\n")
    if options.write:
        start = options.write.read_text() if options.write.is_file() else f"# Performance\n\n{MARK}\n"
        options.write.write_text(f"{start.split(MARK)[0]}{MARK}\n{text}")


if __name__ == "__main__":
    main()
