"""Every command of the README is run, or, where running it would mean to install everything, looked up."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for line in block.strip().splitlines()
]
PROGRAMS = (["python", "train.py"], ["lstmopt-train"])


def simulate(*arguments):
    command = [sys.executable, "-m", "lstmopt.simulate", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True).returncode


def test_there_are_commands():
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, program):
    words = shlex.split(command)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M)
        assert words[1] in targets
        return
    if words[0] == "tensorboard":
        assert words[1:] == ["--logdir", "outputs"]
        return
    if words[0] == "lstmopt-simulate":
        out = program.folder / "schedule.png"
        assert simulate(*words[1:], "--out", out) == 0 and out.is_file()
        return
    if words[0] == "lstmopt-compare":
        few = ["trainer.max_epochs=1", "callbacks.picture=null", "logger=none"]
        done = program(*few, *words[1:-1], "2", command="lstmopt.compare.command")
        assert words[-2:] == ["--seeds", "8"] and done.returncode == 0, done.stderr
        assert len(list(program.folder.glob("**/results.json"))) == 4 * 2
        return
    start = next(start for start in PROGRAMS if words[: len(start)] == start)
    hours = [f"2024-{1 + k // 672:02d}-{1 + k % 672 // 24:02d} {k % 24:02d}:00" for k in range(800)]
    (program.folder / "power.csv").write_text("time,load\n" + "".join(f"{t},{k % 24}\n" for k, t in enumerate(hours)))
    (program.folder / "book.txt").write_text("It was a dark and stormy night. " * 300)
    np.savez(program.folder / "arrays.npz", x=np.random.rand(50, 9, 2), y=np.arange(50) % 2)
    asking = "--help" in words or "--cfg" in words
    searching = any(word.startswith("search=") for word in words)
    fewer = ["search.n_trials=2"] if searching else []
    done = program(*words[len(start) :], *([] if asking else ["trainer.max_epochs=1", *fewer]))
    assert done.returncode == 0, done.stderr
    if asking:
        assert "optimizer" in done.stdout
    else:
        found = list(program.folder.glob("**/results.json"))
        assert len(found) == (2 if searching else 6 if "-m" in words else 1)


def test_the_python_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    names: dict = {}
    exec(code, names)
    assert len(names["trainer"].callbacks) >= 4
