"""The page of the defaults beside plain Adam: its first row is the defaults, its means are those of the rows."""

import statistics
from pathlib import Path

from hydra import compose, initialize_config_dir
from repo_script import load

from lstmopt.conf_dir import conf_dir

ROOT = Path(__file__).parents[2]


def composed(words):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", words)


def test_the_first_row_is_the_defaults():
    module = load("compare_defaults")
    first = next(iter(module.VARIANTS.values())).split()
    typed = {word.partition("=")[0]: word for word in [*module.PLAIN, *first]}
    assert composed([*typed.values()]) == composed([])
    assert composed(module.PLAIN) != composed([])


def test_the_means_are_those_of_the_rows():
    rows = [line.split("|")[2:-1] for line in (ROOT / "docs" / "defaults.md").read_text().splitlines() if "|" in line]
    module = load("compare_defaults")
    count = len(module.VARIANTS) + 2
    assert len(rows) == 2 * count and len(rows[0]) == len(module.TASKS) + 1
    for *tasks, mean in [*rows[2:count], *rows[count + 2 :]]:
        assert abs(statistics.geometric_mean(map(float, tasks)) - float(mean)) < 0.02
