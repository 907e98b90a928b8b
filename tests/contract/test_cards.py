"""Every technique has a card, and the cards say what the option files say."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "docs" / "techniques"
NOTES = yaml.safe_load((CARDS / "notes.yaml").read_text())
OPTIONS = [(file.parent.name, file.stem) for file in sorted((ROOT / "conf").glob("*/*.yaml"))]
TECHNIQUES = ("optimizer", "lr_scheduler", "gradient_clip", "precision", "memory", "model", "profiler", "loader")


def test_every_technique_has_notes_and_every_note_a_technique():
    assert len(OPTIONS) >= 90
    assert {(group, option) for group in NOTES for option in NOTES[group]} == set(OPTIONS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_card(group, option):
    card = (CARDS / f"{group}_{option}.md").read_text()
    (keys,) = re.findall(r"```yaml\n(.*?)```", card, re.S)
    assert keys.strip() in (ROOT / "conf" / group / f"{option}.yaml").read_text(), "scripts/write_cards.py is due"
    assert "**When.**" in card and "python train.py" in card and option in card
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (CARDS / picture).is_file()
    if group in TECHNIQUES:
        assert "**Cost.**" in card
        assert ("![" in card) != ("is refused" in card), "neither a figure nor a reason"


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "data"])
def test_the_command_of_a_data_set_leaves_nothing_out(option):
    (line,) = re.findall(r"```bash\n(.*?)```", (CARDS / f"data_{option}.md").read_text(), re.S)
    _, program, *words = shlex.split(line)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        data = compose("train", words).data
    assert program == "train.py" and not OmegaConf.missing_keys(data)
    expected = {"csv": ("FILE", "COLUMN"), "npz": ("FILE", None), "text": ("FILE", None)}
    if option in expected:
        assert (data.path, data.get("target")) == expected[option]


def test_readme_lists_every_technique():
    readme = (ROOT / "README.md").read_text()
    for group, option in OPTIONS:
        assert group not in TECHNIQUES or option == "none" or f"`{group}={option}`" in readme, (group, option)
