"""Every documented experiment: it composes, is allowed, and its result stands on the page of results."""

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from repo_script import load

from lstmopt import check, compat
from lstmopt.conf_dir import conf_dir

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(file.stem for file in Path(conf_dir(), "experiment").glob("*.yaml") if file.stem != "none")


def test_each_is_run_by_the_script_and_stands_on_the_page():
    assert len(EXPERIMENTS) >= 13
    assert sorted(load("reproduce").RECIPES) == EXPERIMENTS
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "results.md").read_text(), re.M)
    assert sorted(rows) == EXPERIMENTS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_names_its_optimizer_and_rate(name):
    """So that another default leaves a documented result as it is."""
    text = Path(conf_dir(), "experiment", f"{name}.yaml").read_text()
    assert "  - override /optimizer: " in text and "lr" in yaml.safe_load(text)["optimizer"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_composes_and_is_allowed(name):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = compose("train", load("reproduce").command(name, "DIR"))
    assert not check.problems(config) and not compat.problems(config)
    assert config.data.get("root", "DIR") == "DIR"
