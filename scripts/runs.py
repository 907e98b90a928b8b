"""What scripts that train many times share: a run in a process of its own, and a page that shows what came out."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


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


def about(command):
    """Date, command, machine and versions, for the head of a table."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("lstmopt", "torch", "pytorch-lightning"))
    machine = f"{cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{date.today()}, `{command}`; {machine}, {packages}."


def rewrite(page, mark, text):
    """Put `text` in the place of all that follows `<!-- mark -->` on a page."""
    mark = f"<!-- {mark} -->"
    page.write_text(f"{page.read_text().partition(mark)[0]}{mark}\n{text.rstrip()}\n")
