"""Train every option of the techniques' groups on the default data, and keep what the cards show.

    python scripts/train_every_option.py [--jobs 2] [--groups optimizer lr_scheduler] [--epochs 40]

Every run is `python train.py GROUP=OPTION` with one thread; its curves, error, time and memory go into
docs/techniques/results.json, a refusal with its reason.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "docs" / "techniques"


def column(rows, name):
    return [[int(row["step"]), float(row[name])] for row in rows if row.get(name)]


def train(group, option, epochs):
    """What the run left, in a few numbers."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", f"{group}={option}", "logger=csv", f"hydra.run.dir={folder}/run"]
        command += [] if group == "optimizer" else ["optimizer=adam"]  # as any schedule, so that `none` compares
        done = subprocess.run(
            [*command, f"trainer.max_epochs={epochs}"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode == 2:
            return {"refused": done.stderr.removeprefix("lstmopt: ").strip()}
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        result = json.loads(Path(folder, "run", "results.json").read_text())
        rows = list(csv.DictReader(Path(folder, "run", "metrics.csv").read_text().splitlines()))
    rate = next((name for name in rows[0] if name.startswith("lr-")), "")
    return {
        "val_loss": result["best"],
        "test_mse": result["metrics"]["test/mse"],
        "epochs": result["epochs"],
        "steps": result["steps"],
        "seconds": round(result["train_seconds"], 1),
        "peak_memory_mb": round(result["peak_memory_mb"]),
        "parameters": result["parameters"],
        "curve": column(rows, "val/loss"),
        "lr": column(rows, rate)[::4],
        "norm_before": column(rows, "grad_norm/before"),
        "norm_after": column(rows, "grad_norm/after"),
    }


def main():
    groups = ["optimizer", "lr_scheduler", "gradient_clip", "precision", "memory", "model", "profiler", "loader"]
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--groups", nargs="*", default=groups)
    parser.add_argument("--epochs", type=int, default=40)
    arguments = parser.parse_args()
    path = CARDS / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    todo = [(g, file.stem) for g in arguments.groups for file in sorted((ROOT / "conf" / g).glob("*.yaml"))]
    began = time.monotonic()

    def one(job):
        return job, train(*job, arguments.epochs)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for count, ((group, option), result) in enumerate(pool.map(one, todo), 1):
            results.setdefault(group, {})[option] = result
            value = result.get("val_loss", "refused")
            print(f"{count}/{len(todo)} {time.monotonic() - began:5.0f} s  {group}={option}  {value}", flush=True)
            path.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
