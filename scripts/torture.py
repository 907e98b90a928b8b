"""Kill runs again and again, and see whether they end as if nothing had been.

    python scripts/torture.py [--single 50] [--chains 64] [--writes 100] [--signals 30] [--damaged 220] [--full 20]
        [--jobs 2]

Every case is a random configuration (optimizer, schedule, precision, accumulation, validation within epochs, truncated
backpropagation, how often the last checkpoint is written), run once as a whole and once with its kills. "Identical" is
to the bit: weights, optimizer, schedule, counters, early stopping, best checkpoint, results and TensorBoard's curves.

- single: one kill -9 at a random moment of the process, its start and end included.
- chains: four kills each, on first, last and other batches and in validation.
- writes: a kill within the write of a checkpoint; there may be no damaged file under a final name.
- signals: SIGTERM, SIGINT and SIGUSR1 at the start, in training, validation and test; the exit code is 143 or 130, and
  the run goes on to the same end.
- starts: 20 runs begun at once, without a folder named and in the same folder.
- damaged: last.ckpt cut off, empty, random, or with one bit flipped: told, and the one before it is taken; the same of
  best.ckpt, one case in five: told, and the best epoch looked for in those to come, or what to type where none are.
- full: a run goes on with 0, 5, 10, ... kB left on its disk, which is none of the temporary files': it ends, or says
  what it needs with exit code 2 and the checkpoints it had; with room again it goes on to the same end. The small disk
  is mounted, which needs the rights of root.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "integration")]

import killing  # noqa: E402
from random_runs import a_text, some_kills, some_options  # noqa: E402

from lstmopt.checkpoint_file import damage  # noqa: E402


def single(number, rng, folder):
    options = some_options(rng, a_text(folder))
    differing, struck, output = killing.random_kill(options, rng.uniform(0.0, 1.05), folder / "run")
    return differing, struck, output, options


def chains(number, rng, folder):
    options = some_options(rng, a_text(folder))
    differing, struck, output = killing.chain(options, some_kills(rng), folder / "run")
    return differing, struck, output, options


def writes(number, rng, folder):
    options = some_options(rng, a_text(folder))
    kill = ("write", rng.randrange(1, 7), killing.WRITES[number % len(killing.WRITES)])
    return *killing.killed_writing(options, kill, folder / "run"), options


def signals(number, rng, folder):
    options = some_options(rng, a_text(folder))
    signum = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)[number % 3]
    place = ("training_step", "training_step", "validation_step", "setup", "test_step")[number % 5]
    return *killing.signalled(options, place, signum, rng, folder / "run"), [place, *options]


def damaged(number, rng, folder):
    how = "flip" if number >= 20 else ("cut", "cut", "empty", "random")[number % 4]
    if number % 5 == 4:
        return *without_best(how, rng, folder / "run"), [how, "best.ckpt"]
    return *killing.recovered(how, rng, folder / "run"), [how]


def without_best(how, rng, folder):
    """Damage the best checkpoint of a run that goes on, or that was not tested yet: what is wrong with its answers."""
    options = [*killing.BASE, *killing.SERIES, "callbacks.early_stopping.patience=99"]
    kept = Path(tempfile.gettempdir()) / f"run-without-best-{os.getpid()}"
    log = kept.with_suffix(".txt")
    if not kept.exists() and killing.run([*options, f"hydra.run.dir={kept}"], log):
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    shutil.copytree(kept, folder)
    (folder / "results.json").unlink()
    killing.damaged(folder / "checkpoints" / "best.ckpt", how, rng)
    epochs, more = killing.EPOCHS, rng.randrange(2)
    log, options = folder / "log.txt", [*options, f"hydra.run.dir={folder}"]
    code = killing.run([*options, f"trainer.max_epochs={epochs + more}"], log)
    said = log.read_text()
    if code != (0 if more else 2) or "best.ckpt is damaged" not in said or "Traceback" in said:
        return [f"{how}: exit {code}"], 1, said[-2000:]
    typed = f"trainer.max_epochs={2 * epochs}"
    if not more and (f"type {typed}" not in said or killing.run([*options, typed], log)):
        return [f"{how}: {typed}"], 1, log.read_text()[-2000:]
    broken = damage(folder / "checkpoints" / "best.ckpt")
    return [broken] if broken else [], 1, log.read_text()[-2000:]


def starts(number, rng, folder):
    begun = (killing.starts_in_one_second, killing.starts_on_one_folder)[number % 2]
    return begun(20, folder), 0, "", [begun.__name__]


def full(number, rng, folder):
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(disk)], check=True)
    try:
        return *with_little_room(5000 * number, disk, folder / "log.txt"), [f"{5 * number} kB"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def with_little_room(room, disk, log):
    """What is wrong with a run that goes on with `room` bytes left on its disk."""
    options = [*killing.BASE, *killing.SERIES, "logger=none"]
    again = [*options, f"hydra.run.dir={disk}/killed"]
    if killing.run([*options, f"hydra.run.dir={disk}/whole"], log):
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    if killing.run([*again, "trainer.max_epochs=1"], log):
        return ["the first epoch"], 0, log.read_text()[-2000:]
    log.unlink()
    checkpoints, ballast = disk / "killed" / "checkpoints", disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1000)):
            pass
    os.truncate(ballast, max(0, ballast.stat().st_size - room))
    code, said = killing.run(again, log), log.read_text()
    told = "No space left" in said or "has room for" in said
    if code not in (0, 2) or "Traceback" in said or (code and not told):
        return [f"exit {code}"], 0, said[-2000:]
    wrong = [path.name for path in checkpoints.iterdir() if path.suffix == ".part" or damage(path)]
    ballast.unlink()
    if killing.run(again, log):
        return [*wrong, "with room again"], code == 2, log.read_text()[-2000:]
    return wrong + killing.compared(disk), code == 2, said[-2000:]


CASES = {"single": 50, "chains": 64, "writes": 100, "signals": 30, "damaged": 220, "full": 20, "starts": 2}


def one(job):
    """A case in a process of its own, so that nothing is left of the one before."""
    name, number, seed = job
    with tempfile.TemporaryDirectory() as folder:
        differing, struck, output, options = globals()[name](
            number, random.Random(f"{seed} {name} {number}"), Path(folder)
        )
    return name, number, differing, struck, output, " ".join(map(str, options))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in CASES.items():
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    jobs = [(name, number, options.seed) for name in CASES for number in range(getattr(options, name))]
    good, kills = dict.fromkeys(CASES, 0), dict.fromkeys(CASES, 0)
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        for done, (name, number, differing, struck, output, typed) in enumerate(pool.map(one, jobs), 1):
            good[name] += not differing
            kills[name] += struck
            if differing:
                print(f"\n{name} {number}: {', '.join(differing)} after {struck} kills\n  {typed}\n{output}")
            bar = "#" * (40 * done // len(jobs))
            seconds = time.monotonic() - began
            left = seconds / done * (len(jobs) - done)
            print(f"\r[{bar:40}] {done}/{len(jobs)} {seconds:.0f} s, {left:.0f} s left ", end="", flush=True)
    print("\n\n| case | identical | struck |\n|---|---|---|")
    for name in CASES:
        print(f"| {name} | {good[name]} of {getattr(options, name)} | {kills[name]} |")
    sys.exit(any(good[name] < getattr(options, name) for name in CASES))


if __name__ == "__main__":
    main()
