"""Pages of measurements name the day, the machine and the versions of the runs, not those of the page."""

import json
import os
import sys
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from repo_script import load

NOON = datetime(2025, 1, 2, 12).timestamp()


def plant(folder, value=1e-4, torch="2.4.0", status="completed"):
    """A finished run of an older release."""
    folder.mkdir(parents=True)
    versions = {"lstmopt": "0.0.9", "python": "3.11.2", "torch": torch, "pytorch-lightning": "2.5.0"}
    result = {"status": status, "metrics": {"test/mse": value}, "train_seconds": 3.0, "peak_memory_mb": 9.0}
    (folder / "results.json").write_text(json.dumps(result | {"parameters": 7, "versions": versions}))
    os.utime(folder / "results.json", (NOON, NOON))
    return folder


def reproduced(tmp_path, monkeypatch, *words):
    """The row of adding_600 on a page."""
    page = tmp_path / "page.md"
    page.write_text("<!-- reproduce -->\n")
    where = ["--data-root", str(tmp_path), "--folder", str(tmp_path), "--write", str(page)]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "adding_600", *where, *words])
    script = load("reproduce")
    monkeypatch.setattr(script, "program", lambda name, words, *_: made(words))
    script.main()
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("| `adding_600`")]
    assert str(date.today()) not in page.read_text().replace(row, "")
    return [cell.strip() for cell in row.strip("|").split("|")]


def made(words):
    """What the program would have left."""
    (folder,) = [word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
    plant(Path(folder), torch="2.9.0")


def test_runs_that_are_only_read_keep_their_own_day_and_versions(tmp_path, monkeypatch):
    for seed in range(3):
        plant(tmp_path / "adding_600" / str(seed))
    cells = reproduced(tmp_path, monkeypatch, "--jobs", "2")
    assert cells[5] == "holds" and cells[3] == "3"
    assert cells[-1] == "2025-01-02, python 3.11.2, lstmopt 0.0.9, torch 2.4.0, pytorch-lightning 2.5.0"


def test_a_run_is_told_with_what_was_written_down_when_it_was_made(tmp_path, monkeypatch):
    runs = load("runs")
    for seed in range(2):
        plant(tmp_path / "adding_600" / str(seed))
    cells = reproduced(tmp_path, monkeypatch, "--jobs", "2")
    machine = f"{runs.cpu()}, {os.cpu_count()} cores (part of the runs)"
    versions = "python 3.11.2, lstmopt 0.0.9, torch 2.4.0 and 2.9.0, pytorch-lightning 2.5.0"
    assert cells[-1] == f"2025-01-02 to {date.today()}, {machine}, {versions}, 2 at a time (part of the runs)"
    again = reproduced(tmp_path, monkeypatch, "--jobs", "1")
    assert again[-1] == cells[-1]


@pytest.mark.parametrize(("value", "verdict"), [(1e-4, "2 of 3 seeds"), (1.0, "**missed**, 2 of 3 seeds")])
def test_too_few_seeds_hold_nothing(tmp_path, value, verdict):
    folders = [plant(tmp_path / str(seed), value) for seed in range(2)]
    folders.append(plant(tmp_path / "2", value, status="failed"))
    row = load("reproduce").row("adding_600", folders, SimpleNamespace(seeds=2, jobs=1, data_root=tmp_path))
    assert row.split("|")[6].strip() == verdict


def test_a_comparison_that_is_only_read(tmp_path, monkeypatch):
    runs = load("runs")
    for seed in range(2):
        plant(tmp_path / "co2" / "0" / str(seed))
    head = "2025-01-02, python 3.11.2, lstmopt 0.0.9, torch 2.4.0, pytorch-lightning 2.5.0."
    assert runs.about("a.py", [tmp_path / "co2"]) == f"`a.py`; {head}"
    monkeypatch.setattr(runs, "cpu", lambda: "Z80")
    runs.record(tmp_path / "co2", 3)
    told = runs.about("a.py", [tmp_path / "co2"])
    assert told.startswith(f"`a.py`; {date.today()}, Z80, ") and "torch 2.4.0" in told and told.endswith("3 at a time.")
    assert runs.about("a.py", [tmp_path / "none"]) == "`a.py`."
