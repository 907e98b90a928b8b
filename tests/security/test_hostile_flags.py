"""Flags of Hydra that would run code: refused before Hydra reads them, in every spelling."""

import pickle
import sys
from pathlib import Path

import pytest
from hydra._internal.utils import get_args_parser

NAME = "--experimental-rerun"
CODE = "from pathlib import Path\nPath('canary').write_text('ran')\n"


class Bomb:
    def __reduce__(self):
        return exec, (CODE,)


@pytest.fixture
def bomb(program):
    """A pickle that leaves a canary in the folder of the program."""
    (program.folder / "run.pkl").write_bytes(pickle.dumps(Bomb()))
    return program


def refused(done, program, words):
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert len(done.stderr.splitlines()) == 2 and words in done.stderr, done.stderr
    assert not (program.folder / "canary").exists() and not (program.folder / "outputs").exists()


def test_the_pickle_does_run_when_it_is_read(bomb, monkeypatch):
    monkeypatch.chdir(bomb.folder)
    pickle.loads(Path("run.pkl").read_bytes())
    assert Path("canary").exists()


def spellings():
    """Each abbreviation that Hydra's parser takes, with the file behind it and after an equals sign."""
    for length in range(3, len(NAME) + 1):
        flag = NAME[:length]
        assert get_args_parser().parse_args([flag, "run.pkl"]).experimental_rerun == "run.pkl"
        yield [flag, "run.pkl"]
        yield [f"{flag}=run.pkl"]


def test_a_pickle(bomb):
    several = [
        *spellings(),
        ["trainer=debug", NAME, "run.pkl"],
        [NAME, "run.pkl", "--help"],
        ["--multirun", "seed=0,1", "--exp=run.pkl"],
        ["--cfg", "job", "--exp", "run.pkl"],
        ["search=tpe", "--exp=run.pkl"],
    ]
    assert len(several) >= 2 * 18
    for words in several[::5] + several[-5:]:
        done = bomb(*words)
        refused(done, bomb, "--experimental-rerun runs whatever code stands in the file")
        assert "type the run's words again" in done.stderr
    for words in (["--", "--exp", "run.pkl"], ["--exp", "--", "run.pkl"], ["--", "--exp=run.pkl"], ["--exp"]):
        assert bomb(*words).returncode != 0 and not (bomb.folder / "canary").exists()


def test_a_pickle_with_a_space_in_its_name(bomb):
    (bomb.folder / "run.pkl").rename(bomb.folder / "a run.pkl")
    refused(bomb("--exp=a run.pkl"), bomb, NAME)


@pytest.mark.parametrize("command", ["lstmopt.compare.command", "lstmopt.simulate", "lstmopt.export"])
def test_other_commands_hand_no_such_flag_on(command, bomb):
    before = [] if command != "lstmopt.compare.command" else ["--variants", "seed=1"]
    for words in (["--exp", "run.pkl"], ["--exp=run.pkl"], ["--", "--exp=run.pkl"], ["--", "--exp", "run.pkl"]):
        done = bomb(*before, *words, command=command)
        assert done.returncode in (1, 2) and not (bomb.folder / "canary").exists(), done.stderr


HYDRA = "hydra:\n  callbacks:\n    x:\n      _target_: hostile.Callback\n"
FLAGS = [
    ["--config-d", "my", "experiment=gift"],
    ["experiment=gift", "--config-d", "my"],
    ["--config-di=my", "experiment=gift"],
    ["-cd=my", "experiment=gift"],
    ["--mult", "--config-d", "my", "experiment=gift", "seed=0,1"],
]


@pytest.fixture
def gift(program, monkeypatch):
    """A folder of options with a callback of Hydra, and a module whose import leaves a canary."""
    (program.folder / "my" / "experiment").mkdir(parents=True)
    (program.folder / "my" / "experiment" / "gift.yaml").write_text(f"# @package _global_\n{HYDRA}")
    (program.folder / "hostile").mkdir()
    (program.folder / "hostile" / "__init__.py").write_text(CODE)
    monkeypatch.syspath_prepend(program.folder)
    return program


@pytest.mark.parametrize("words", FLAGS, ids=" ".join)
def test_an_abbreviated_flag_is_looked_at_as_the_whole_one(words, gift):
    refused(gift(*words), gift, "hydra.callbacks.x._target_=hostile.Callback is not allowed")


MAIN = "defaults:\n  - train\n  - _self_\nhydra:\n  searchpath: ['pkg://hostile']\n"


PACKAGES = [
    ["--config-path", "FOLDER/my", "--config-name", "main"],
    ["--config-p=FOLDER/my", "--config-n=main"],
    ["-cp", "FOLDER/my", "-cn", "main", "--cfg", "job"],
    ["-cp", "FOLDER/my", "-cn", "main", "--info"],
    ["-cp", "FOLDER/my", "-cn", "main", "--help"],
    ["--config-dir", "my", "-cn", "main", "--help"],
    ["hydra.searchpath=[pkg://hostile]"],
    ["hydra.searchpath=[pkg://hostile]", "--cfg", "job"],
]


@pytest.mark.parametrize("words", PACKAGES, ids=" ".join)
def test_a_package_in_the_search_path_is_not_imported(words, gift):
    (gift.folder / "my" / "main.yaml").write_text(MAIN)
    refused(gift(*(word.replace("FOLDER", str(gift.folder)) for word in words)), gift, "pkg://hostile is a package")


def test_a_package_as_the_path_of_the_configs_is_not_imported(gift):
    assert gift("--config-path", "pkg://hostile", "--help").returncode == 2
    assert gift("--config-path", "pkg://hostile").returncode != 0 and not (gift.folder / "canary").exists()


def test_completion_imports_nothing_of_others(gift, monkeypatch):
    (gift.folder / "my" / "main.yaml").write_text(MAIN)
    monkeypatch.setenv("COMP_LINE", "lstmopt-train optimizer=ad")
    monkeypatch.setenv("COMP_POINT", "26")
    gift("--config-dir", "my", "-cn", "main", "-sc", "query=bash")
    assert not (gift.folder / "canary").exists()
    assert "hostile" not in sys.modules
