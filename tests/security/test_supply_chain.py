"""Every pinned package has its hashes, and the lowest versions are those that are safe."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_every_pin_has_its_hashes():
    pins = re.findall(r"^([\w.-]+==[\w.+]+)$", (ROOT / "constraints.txt").read_text(), re.M)
    lock = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+==[\w.+]+) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", lock, re.M))

    def name(pin):
        return re.sub(r"[-_.]+", "-", pin.lower())

    assert len(pins) >= 80
    assert {name(pin) for pin in pins} == {name(pin) for pin in locked}
    assert all("sha256" in hashes for hashes in locked.values())
    assert not re.search(r"https?:|file:|index-url|find-links|@ ", lock)


def test_lowest_versions_and_excluded_releases():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    assert "2.9.1" not in needed["torch"] and "2.10" in needed["torch"]
    assert "2.6.5" not in needed["pytorch-lightning"] and "2.6.6" in needed["pytorch-lightning"]
    assert "lightning" not in needed
    line = next(x for x in (ROOT / "constraints.txt").read_text().splitlines() if x.startswith("lightning"))
    assert not {"2.6.2", "2.6.3"} & set(Requirement(line).specifier.filter(["2.6.1", "2.6.2", "2.6.3", "2.6.6"]))


def test_workflows_pin_their_actions_and_may_only_read():
    """A tag can be moved, a commit cannot; a job gets no more than it needs."""
    found = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
    assert [path.name for path in found] == ["ci.yml", "nightly.yml"]
    for path in found:
        workflow = yaml.safe_load(path.read_text())
        steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
        used = [step for step in steps if "uses" in step]
        assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]) for step in used), path.name
        assert workflow["permissions"] == {"contents": "read"}, path.name
        assert all("permissions" not in job and job["timeout-minutes"] for job in workflow["jobs"].values()), path.name
        checkouts = [step for step in used if step["uses"].startswith("actions/checkout@")]
        assert len(checkouts) == len(workflow["jobs"]), path.name
        assert all(step["with"]["persist-credentials"] is False for step in checkouts), path.name
