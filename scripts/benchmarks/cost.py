"""Training windows per second of this checkout, beside those of an older commit.

    python scripts/benchmarks/cost.py --data-root DIR [--commit 3add660] [--repeats 7] [--steps 160]

3add660 is the commit before the work on reliability. It is checked out beside this one in a temporary folder, which is
removed at the end; this checkout is measured as it lies there, with what is not committed. Each runs its own
`throughput.py --one lstmopt`, in turns, in processes of one interpreter that find the package of their own checkout.
The older commit knows no compiled kernel, so there are two rows: as the program runs, and both on torch's kernel, which
is what all that came since costs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from in_turns import finish, in_turns, number_from, row

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path("scripts", "benchmarks", "throughput.py")
OWN_KERNEL, TORCHS = "lstmopt", "lstmopt, torch's kernel"


def git(*words):
    return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)


@contextmanager
def checked_out(commit):
    """A folder with the files of a commit, while it is needed."""
    if git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").returncode:
        shallow = git("rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        why = "this clone is shallow: git fetch --unshallow" if shallow else "type --commit of one that git log shows"
        sys.exit(f"there is no commit {commit} here; {why}")
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder, "then")
        try:
            made = git("worktree", "add", "--detach", str(there), commit)
            if made.returncode:
                sys.exit(f"git worktree add: {made.stderr.strip()}")
            yield there
        finally:
            git("worktree", "remove", "--force", "--force", str(there))  # also where it was cut off in the making


def contestant(root, name, options):
    """Windows per second of a checkout, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    where = [sys.executable, "-c", "import lstmopt; print(lstmopt.__file__)"]
    found = subprocess.run(where, env=environment, cwd=root, capture_output=True, text=True, check=True).stdout
    if not Path(found.strip()).is_relative_to(root):
        sys.exit(f"the package of {root} is not the one that is imported, which is {found.strip()}")
    command = [sys.executable, str(root / SCRIPT), "--data-root", str(Path(options.data_root).resolve())]
    command += ["--steps", str(options.steps), "--one", name]
    return lambda: number_from(command, env=environment, cwd=root)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="folder that holds ett/ETTh1.csv")
    parser.add_argument("--commit", default="3add660", help="what this checkout is measured beside")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=160)
    options = parser.parse_args()
    with checked_out(options.commit) as there:
        before = "then"
        contestants = {
            "now": contestant(ROOT, OWN_KERNEL, options),
            "now, torch's kernel": contestant(ROOT, TORCHS, options),
            "then": contestant(there, OWN_KERNEL, options),
        }
        if TORCHS in (there / SCRIPT).read_text():
            before = "then, torch's kernel"
            contestants[before] = contestant(there, TORCHS, options)
        found = in_turns(contestants, options.repeats)

    def against(what, one, other):
        medians = {f"{name}, windows/s": found[name] for name in (one, other)}
        return row(what, found[one] / found[other], 0.98, medians, options.repeats)

    what = f"training windows/s, now ÷ at {options.commit}"
    finish([against(what, "now", "then"), against(f"{what}, both on torch's kernel", "now, torch's kernel", before)])


if __name__ == "__main__":
    main()
