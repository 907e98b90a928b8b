"""From the start of the process to the end of the first optimizer step, beside the bare imports.

    python scripts/benchmarks/start.py [--repeats 5]

The program on its default data, one epoch (its own figure, `seconds_to_first_step`); and a process that imports torch,
pytorch_lightning, hydra and torchmetrics, from its start to the end of the imports.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from in_turns import finish, in_turns, number_from, row

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """
import time, psutil
import torch, pytorch_lightning, hydra, torchmetrics
print(time.time() - psutil.Process().create_time())
"""


def first_step():
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), "trainer.max_epochs=1", f"hydra.run.dir={folder}/run"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        return json.loads(Path(folder, "run", "results.json").read_text())["seconds_to_first_step"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    contestants = {"first step": first_step, "imports": lambda: number_from([sys.executable, "-c", IMPORTS])}
    found = in_turns(contestants, options.repeats)
    medians = {f"{name}, s": value for name, value in found.items()}
    ratio = found["first step"] / found["imports"]
    finish([row("process start to first step ÷ imports", ratio, 1.25, medians, options.repeats, "lower")])


if __name__ == "__main__":
    main()
