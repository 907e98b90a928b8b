"""Searches by Keras Tuner's oracles, 8 trials each, and what they leave.

    python scripts/check_keras_tuner.py [--oracles bayesian hyperband random grid] [--trials 8]

Looks at `sweep.json`, at every `results.json`, and, for Hyperband, at the epochs of its rounds. Ends with 1 where
something is wrong. Needs `pip install 'lstmopt[keras]'`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["trainer.max_epochs=3", "trainer.limit_train_batches=3", "callbacks.picture=null", "logger=none"]
SPACE = ["search/space=optimizers", "model.hidden_size=8"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracles", nargs="+", default=["bayesian", "hyperband"])
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    failed = False
    for oracle in options.oracles:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            words = [f"search.sampler.oracle={oracle}", f"search.n_trials={options.trials}", "search.study=k"]
            if oracle == "bayesian":
                words.append("search.sampler.num_initial_points=3")
            command = [sys.executable, str(ROOT / "train.py"), "search=keras_tuner", *words, *SMALL, *SPACE]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
            wrong = [] if done.returncode == 0 else [f"exit code {done.returncode}: {done.stderr[-2000:]}"]
            path = Path(folder, "multirun", "k", "sweep.json")
            trials = json.loads(path.read_text())["trials"] if path.is_file() else []
            states = Counter(trial["status"] for trial in trials)
            allowed = {"completed"} if oracle == "hyperband" else {"completed", "pruned"}
            if sum(states.values()) != options.trials or not {"completed"} <= set(states) <= allowed:
                wrong.append(f"trials ended as {dict(states)}")
            epochs = []
            for trial in trials:
                result = json.loads(Path(trial["run_dir"], "results.json").read_text())
                epochs.append(result["epochs"])
                same = trial["status"] == "pruned" or result["best"] == trial["value"]
                if result["status"] != trial["status"] or not same:
                    wrong.append(f"trial {trial['number']} and its results.json differ")
            resumed = [t["number"] for t in trials if "going on" in Path(t["run_dir"], "output.log").read_text()]
            if oracle == "hyperband" and (epochs[:6] != [1, 1, 1, 3, 3, 3] or 3 not in resumed):
                wrong.append(f"epochs {epochs}, of which {resumed} went on from an earlier trial")
            seconds = time.monotonic() - began
            print(
                f"{oracle}: {dict(states)} in {seconds:.0f} s, epochs {epochs}, gone on from earlier ones: {resumed}: "
                f"{'MISSED' if wrong else 'holds'}",
                flush=True,
            )
            print("\n".join(wrong), file=sys.stderr, flush=True)
            failed |= bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
