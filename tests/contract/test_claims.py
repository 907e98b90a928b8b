"""Every claim of the guide: what it types composes and is allowed, and its verdict stands on the page."""

import re
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from lstmopt import check, compat
from lstmopt.conf_dir import conf_dir

ROOT = Path(__file__).parents[2]
PLAN = yaml.safe_load((ROOT / "scripts" / "claims.yaml").read_text())
CLAIMS = PLAN["claims"]
VERDICTS = {"supported", "refuted", "not shown"}


def test_each_stands_on_the_page_with_its_verdict():
    assert len(CLAIMS) >= 22
    page = (ROOT / "docs" / "guide.md").read_text()
    rows = dict(re.findall(r"^\| ([^|`]+) \| (supported|refuted|not shown) \|$", page, re.M))
    assert rows.keys() == {one["claim"] for one in CLAIMS.values()}
    parts = re.findall(r"^### (.+)\n\n\*\*([a-z ]+)\.\*\*", page, re.M)
    assert dict(parts) == rows and set(rows.values()) <= VERDICTS
    assert (ROOT / "docs" / "guide.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", CLAIMS)
def test_what_is_typed_composes_and_is_allowed(name):
    claim = CLAIMS[name]
    assert len(claim.get("sets", PLAN["default"])) >= 3
    words = [word.format(root="DIR") for word in PLAN["sets"][claim.get("sets", PLAN["default"])[0]]]
    base = claim.get("base", [])
    kept = {word.partition("=")[0] for word in base}
    words = [word for word in words if word.partition("=")[0] not in kept] + base
    for typed in [[], *({test["variant"] for test in claim["tests"]})]:
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            config = compose("train", [*words, *(typed.split() if typed else [])])
        assert not check.problems(config) and not compat.problems(config)
    assert all(test["of"] in {"loss", "test", "seconds", "time_to_both", "memory", "search"} for test in claim["tests"])
