"""The database of a search that is cut off, has zeros in it, or is no database."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "callbacks.picture=null", "logger=none"]
WORDS = ["search=random", "model.hidden_size=4,8,16,32", "search/pruner=none", "search.study=s", *SMALL]
PAGE = 4096


def zeros(part):
    def zeroed(content):
        at = int(part * (len(content) // PAGE)) * PAGE
        return content[:at] + bytes(PAGE) + content[at + PAGE :]

    return zeroed


DAMAGE = {
    "a tenth": lambda content: content[: len(content) // 10],
    "a half": lambda content: content[: len(content) // 2],
    "a page less": lambda content: content[:-PAGE],
    "all zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"no database\n" * 500,
    **{f"zeros at {part}": zeros(part) for part in (0, 0.1, 0.3, 0.5, 0.7, 0.9)},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The bytes of the database of two trials."""
    folder = tmp_path_factory.mktemp("searched")
    command = [sys.executable, str(ROOT / "train.py"), *WORDS, "search.n_trials=2"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (folder / "multirun" / "s" / "study.db").read_bytes()


@pytest.mark.parametrize("how", DAMAGE)
def test_it_is_said(how, searched, program):
    folder = program.folder / "multirun" / "s"
    folder.mkdir(parents=True)
    damaged = DAMAGE[how](searched)
    (folder / "study.db").write_bytes(damaged)
    done = program(*WORDS, "search.n_trials=3")
    assert done.returncode == 2 and "Traceback" not in done.stderr + done.stdout, (done.stdout + done.stderr)[-2000:]
    assert "study.db" in done.stderr and "  type search.study=NAME" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 5
    assert (folder / "study.db").read_bytes() == damaged  # what is left may still be rescued


def test_an_empty_file_is_a_new_study(program):
    folder = program.folder / "multirun" / "s"
    folder.mkdir(parents=True)
    (folder / "study.db").write_bytes(b"")
    done = program(*WORDS, "search.n_trials=1")
    assert done.returncode == 0, done.stderr
