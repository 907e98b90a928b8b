"""The page that compares the defaults with plain Adam: its first row is the defaults, and its figure is in its text."""

import importlib.util
import statistics
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from lstmopt.conf_dir import conf_dir

ROOT = Path(__file__).parents[2]


def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("compare_defaults", ROOT / "scripts" / "compare_defaults.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "scripts"))
    return module


def composed(words):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", words)


def test_the_first_row_is_the_defaults():
    module = script()
    first = next(iter(module.VARIANTS.values())).split()
    typed = {word.partition("=")[0]: word for word in [*module.PLAIN, *first]}
    assert composed([*typed.values()]) == composed([])
    assert composed(module.PLAIN) != composed([])


def test_the_means_are_those_of_the_rows():
    rows = [line.split("|")[2:-1] for line in (ROOT / "docs" / "defaults.md").read_text().splitlines() if "|" in line]
    count = len(script().VARIANTS) + 2
    assert len(rows) == 2 * count and len(rows[0]) == len(script().TASKS) + 1
    for *tasks, mean in [*rows[2:count], *rows[count + 2 :]]:
        assert abs(statistics.geometric_mean(map(float, tasks)) - float(mean)) < 0.02
