"""What scripts that train many times share: a run in a process of its own, and a page that shows what came out."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from datetime import date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MADE = "made.json"  # what `record` writes


def program(name, words, log, threads=None):
    """Run `name` of the checkout; what it says is added to the file `log`.

    Raises:
        RuntimeError: it ended with another code than 0; with the end of what it said.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    with open(log, "a") as file:
        code = subprocess.run([sys.executable, str(ROOT / name), *words], stdout=file, stderr=file, env=environment)
    if code.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {code.returncode}: {log.read_text()[-1500:]}")


def results(folder):
    """`results.json` of a run folder; None where there is none."""
    path = Path(folder) / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def parser(doc, seeds, folder):
    """The options that such scripts share; the defaults are a number of seeds, and where runs lie."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data-root", type=lambda path: Path(path).resolve(), required=True)
    made.add_argument("--seeds", type=int, default=seeds)
    made.add_argument("--jobs", type=int, default=1, help="runs at a time")
    made.add_argument("--folder", type=lambda path: Path(path).resolve(), default=Path(folder).resolve())
    made.add_argument("--write", type=Path, help="a page whose part after the mark is replaced")
    return made


def cpu():
    """What the processor calls itself."""
    if Path("/proc/cpuinfo").is_file():
        return (re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text()) or [platform.machine()])[0]
    return platform.machine()


def record(folder, jobs):
    """Write down when, where and beside how many others the runs of a folder were made, as soon as they are."""
    facts = {"date": str(date.today()), "machine": f"{cpu()}, {os.cpu_count()} cores", "jobs": jobs}
    (Path(folder) / MADE).write_text(json.dumps(facts, indent=2) + "\n")


def provenance(folders):
    """When, where and with what the runs in these folders, and in folders of theirs, were made.

    Date, machine and jobs are those of `record`. Of runs without it the date is that of results.json, and nothing is
    said about the rest. Versions are those that results.json names.
    """
    made = []
    for file in sorted(file for folder in folders for file in Path(folder).rglob("results.json")):
        notes = [parent / MADE for parent in file.parents[:3] if (parent / MADE).is_file()]
        own = json.loads(notes[0].read_text()) if notes else {}
        own.setdefault("date", str(datetime.fromtimestamp(file.stat().st_mtime).date()))
        made.append(own | {"versions": json.loads(file.read_text()).get("versions", {})})
    if not made:
        return ""
    days = sorted(one["date"] for one in made)
    parts = [" to ".join(dict.fromkeys((days[0], days[-1]))), _every([one.get("machine") for one in made])]
    for name in ("python", "lstmopt", "torch", "pytorch-lightning"):
        known = _every([one["versions"].get(name) for one in made])
        parts.append(f"{name} {known}" if known else "")
    parts.append(_every([one.get("jobs") for one in made], " at a time"))
    return ", ".join(part for part in parts if part)


def _every(values, unit=""):
    """All that there are, in words; where some are not known, that too."""
    known = " and ".join(sorted({str(value) for value in values if value is not None}))
    return f"{known}{unit}{' (part of the runs)' if None in values else ''}" if known else ""


def about(command, folders):
    """Command and provenance of the runs that it showed, for the head of a table."""
    return "; ".join(part for part in (f"`{command}`", provenance(folders)) if part) + "."


def rewrite(page, mark, text):
    """Put `text` in the place of all that follows `<!-- mark -->` on a page."""
    mark = f"<!-- {mark} -->"
    page.write_text(f"{page.read_text().partition(mark)[0]}{mark}\n{text.rstrip()}\n")
