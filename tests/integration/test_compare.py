"""Comparisons through the whole program."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["trainer.max_epochs=3", "trainer.limit_train_batches=4", "callbacks.picture=null", "model.hidden_size=8"]
VARIANTS = ["optimizer.lr=1e-6", "optimizer=rmsprop optimizer.lr=0.01", "optimizer.lr=0.01"]


def compare(folder, *words, **options):
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), *SMALL, "search.study=c", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def compared(program, *words):
    """The same in a forked child."""
    done = program(*SMALL, "search.study=c", *words, command="lstmopt.compare.command")
    return done.returncode, done.stdout, done.stderr


def test_a_comparison_from_the_command_to_its_report(program):
    code, out, err = compared(program, "--variants", *VARIANTS)
    assert code == 0, err
    folder = program.folder / "multirun" / "c"
    found = json.loads((folder / "compare.json").read_text())
    arms = {one["variant"]: one for one in found["arms"]}
    assert list(arms) == ["base", *VARIANTS] and found["seeds"] == list(range(8))
    assert arms["optimizer.lr=1e-6"]["verdict"] == "worse"
    assert "given up after 7 seeds" in arms["optimizer.lr=1e-6"]["reason"] and arms["optimizer.lr=1e-6"]["seeds"] == 7
    assert [arms[one]["seeds"] for one in ("base", "optimizer.lr=0.01")] == [8, 8]
    for number, one in enumerate(found["arms"]):
        results = [
            json.loads((folder / str(number) / str(k) / "results.json").read_text()) for k in range(one["seeds"])
        ]
        assert one["values"] == [result["best"] for result in results]
        assert [result["seed"] for result in results] == list(range(one["seeds"]))
    assert arms["optimizer.lr=1e-6"]["time_to_base"] is None and arms["optimizer.lr=0.01"]["time_to_base"] > 0
    page = (folder / "report.html").read_text()
    assert len(re.findall('<img alt="(?:effects|curves)"', page)) == 2 and "http" not in page.split("<style>")[1]
    assert all(variant in page for variant in VARIANTS) and "optimizer=rmsprop" in out
    assert list((folder / "comparison").glob("events.*"))
    again = compared(program, "--variants", *VARIANTS)
    assert again[0] == 0 and json.loads((folder / "compare.json").read_text())["arms"] == found["arms"]


def test_the_same_twice_in_two_processes_is_no_difference(tmp_path):
    process = compare(tmp_path, "--variants", "optimizer.lr=0.01", "--seeds", "6", "--jobs", "2")
    _, err = process.communicate()
    assert process.returncode == 0, err
    base, same = json.loads((tmp_path / "multirun" / "c" / "compare.json").read_text())["arms"]
    assert base["values"] == same["values"] and same["verdict"] == "no difference shown" and same["p"] == 1.0


def test_a_plus_before_a_group_is_left_out(program):
    variant = "+lr_scheduler=one_cycle optimizer.lr=0.01"
    code, _, err = compared(program, "--variants", variant, "--seeds", "2", "data.horizon=5")  # as of any program
    assert code == 0, err
    folder = program.folder / "multirun" / "c"
    assert json.loads((folder / "compare.json").read_text())["arms"][1]["variant"] == variant
    config = (folder / "1" / "0" / ".hydra" / "config.yaml").read_text()
    assert "lstmopt.callbacks.one_cycle.OneCycle" in config and "lr: 0.01" in config and "horizon: 5" in config


def test_killed_and_begun_again_no_run_is_repeated(program):
    tmp_path = program.folder
    words = ["--variants", *VARIANTS[1:], "--seeds", "6"]
    process = compare(tmp_path, *words, start_new_session=True)
    folder = tmp_path / "multirun" / "c"
    began = time.monotonic()
    while len(list(folder.glob("*/*/results.json"))) < 5 and time.monotonic() - began < 120:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/results.json")}
    assert 5 <= len(before) < 18
    code, _, err = compared(program, *words)
    assert code == 0, err
    after = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/results.json")}
    assert len(after) == 18 and all(after[path] == moment for path, moment in before.items())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--variants", "optimizer=rmsprob", "optimizer.learning_rate=1"], ["rmsprob", "learning_rate"]),
        (["--variants", "precision=fp16_mixed", "gradient_clip=none"], ["precision=fp16_mixed", "GPU"]),
        (["optimizer=adam,sgd", "--variants", "gradient_clip=none"], ["--variants optimizer=adam optimizer=sgd"]),
        (
            ["--variants", "optimizer=adam", "optimizer=adam,sgd optimizer.lr=0.1"],
            ["optimizer=adam,sgd has", "--variants 'optimizer=adam optimizer.lr=0.1' 'optimizer=sgd optimizer.lr=0.1'"],
        ),
        (["--variants", "gradient_clip=none", "--seeds", "1"], ["--seeds 2 or more"]),
        (["--variants", "optimizer=sgd seed=3"], ["type seed=3 before --variants"]),
        (
            ["data=csv", "data.path=none.csv", "data.target=a", "--variants", "optimizer=sgd"],
            ["data.path=none.csv does not exist", "path of a CSV file"],
        ),
    ],
)
def test_what_cannot_work_is_told_before_any_run(words, told, program):
    code, out, err = compared(program, *words)
    assert code == 2 and all(word in err for word in told), err
    assert "Traceback" not in err and not (program.folder / "multirun").exists()
