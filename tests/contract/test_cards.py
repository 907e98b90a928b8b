"""Every technique has a card, and the cards say what the option files say."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "docs" / "techniques"
NOTES = yaml.safe_load((CARDS / "notes.yaml").read_text())
OPTIONS = [(group, file.stem) for group in NOTES for file in sorted((ROOT / "conf" / group).glob("*.yaml"))]


def test_every_technique_has_notes_and_every_note_a_technique():
    assert len(OPTIONS) >= 55
    assert {(group, option) for group in NOTES for option in NOTES[group]} == set(OPTIONS)


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=[f"{group}={option}" for group, option in OPTIONS])
def test_card(group, option):
    card = (CARDS / f"{group}_{option}.md").read_text()
    (keys,) = re.findall(r"```yaml\n(.*?)```", card, re.S)
    assert keys.strip() in (ROOT / "conf" / group / f"{option}.yaml").read_text(), "scripts/write_cards.py is due"
    for heading in ("**When.**", "**Cost.**", f"python train.py {group}={option}"):
        assert heading in card
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (CARDS / picture).is_file()
    assert ("![" in card) != ("is refused" in card), "neither a figure nor a reason"


def test_readme_lists_every_technique():
    readme = (ROOT / "README.md").read_text()
    for group, option in OPTIONS:
        assert option == "none" or f"`{group}={option}`" in readme, (group, option)
