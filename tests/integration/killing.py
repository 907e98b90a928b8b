"""Runs that are killed at a chosen moment, and what they leave, compared with a run that was not."""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from leavings import left
from random_runs import BASE, BATCHES, EPOCHS, SERIES


def start(arguments, log, kill=None):
    """The program in a forked child, which kills itself where `kill` says; its process id."""
    import lstmopt.run  # noqa: F401  imported before the fork
    from lstmopt.train import main

    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["lstmopt-train", *map(str, arguments)]
        if kill:
            plant(*kill)
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(arguments, log, kill=None):
    """The program to its end; its exit code, -9 where it was killed."""
    return ended(start(arguments, log, kill))


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def plant(where, *position):
    """Let this process be killed in the training or validation step of (epoch, batch), or in the n-th write of a
    checkpoint after some of its bytes; or be asked to stop by another signal."""
    from lstmopt import checkpoint_file
    from lstmopt.module import LSTMModule

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if where in ("training_step", "validation_step"):
        original = getattr(LSTMModule, where)

        def step(module, batch, batch_idx):
            if (module.current_epoch, batch_idx) == position:
                die()
            return original(module, batch, batch_idx)

        setattr(LSTMModule, where, step)
    elif where == "signal":
        place, *moment, signum = position
        original = getattr(LSTMModule, place)

        def asked(module, *arguments, **named):
            now = [module.current_epoch, arguments[-1]] if place in ("training_step", "validation_step") else [0, 0]
            if now == moment:
                moment.clear()  # once: L-BFGS evaluates a step several times, and a second SIGINT ends a run at once
                os.kill(os.getpid(), signum)
            return original(module, *arguments, **named)

        setattr(LSTMModule, place, asked)
    elif where == "write":
        number, point = position
        writes = [0]
        original_write, replace, fsync = checkpoint_file.write, os.replace, os.fsync

        def write(path, save):
            writes[0] += 1
            if writes[0] != number:
                return original_write(path, save)

            def cut(file):
                save(file)
                if point < 1:  # some of the bytes only
                    file.flush()
                    file.truncate(int(file.tell() * point))
                    die()

            if point == 1:  # all bytes, not brought to the disk
                os.fsync = lambda handle: die()
            elif point == 2:  # on the disk, not in its place
                os.replace = lambda *paths: die()
            try:
                original_write(path, cut)
            finally:
                os.fsync, os.replace = fsync, replace
            if point >= 3:  # in its place; the names of the generations change next
                counted = [0]

                def some(*paths):
                    counted[0] += 1
                    if counted[0] == point - 2:
                        die()
                    return replace(*paths)

                os.replace = some

        checkpoint_file.write = write
    else:
        raise ValueError(where)


def chain(options, kills, folder):
    """Run `options` as a whole, and again with each of `kills` in turn; what differs at the end.

    Returns:
        names that differ, the number of kills that struck, and the output where something went wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    code = run([*options, f"hydra.run.dir={folder / 'whole'}"], log)
    if code:
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    struck = 0
    again = [*options, f"hydra.run.dir={folder / 'killed'}"]
    for kill in kills:
        code = run(again, log, kill)
        struck += code == -9
        if code not in (0, -9):
            return [f"exit {code}"], struck, log.read_text()[-2000:]
    code = run(again, log)
    if code:
        return [f"exit {code}"], struck, log.read_text()[-2000:]
    return compared(folder), struck, ""


def random_kill(options, moment, folder):
    """One kill after a part of the time that the whole run takes, then the run to its end; as `chain`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    began = time.monotonic()
    if run([*options, f"hydra.run.dir={folder / 'whole'}"], log):
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    seconds = time.monotonic() - began
    again = [*options, f"hydra.run.dir={folder / 'killed'}"]
    pid = start(again, log)
    time.sleep(moment * seconds)
    os.kill(pid, signal.SIGKILL)
    struck = ended(pid) == -9
    if run(again, log):
        return ["exit"], struck, log.read_text()[-2000:]
    return compared(folder), struck, ""


def compared(folder):
    """The names of what differs between the whole run and the other one."""
    whole, killed = left(folder / "whole"), left(folder / "killed")
    return [name for name in whole | killed if whole.get(name) != killed.get(name)]


def killed_writing(options, kill, folder):
    """A run that is killed in a write: no damaged file has a final name, and it ends as the whole one."""
    from lstmopt.checkpoint_file import damage

    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    if run([*options, f"hydra.run.dir={folder / 'whole'}"], log):
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    again = [*options, f"hydra.run.dir={folder / 'killed'}"]
    struck = run(again, log, kill) == -9
    broken = [path.name for path in (folder / "killed" / "checkpoints").glob("*.ckpt") if damage(path)]
    if run(again, log):
        return ["exit"], struck, log.read_text()[-2000:]
    parts = [path.name for path in (folder / "killed" / "checkpoints").glob("*.part")]
    return broken + parts + compared(folder), struck, ""


def signalled(options, place, signum, rng, folder):
    """A run that is asked to stop in its `setup`, in a training or validation step, or while it is tested
    (`test_step`): its exit code says so, and it goes on to the same end."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    if run([*options, f"hydra.run.dir={folder / 'whole'}"], log):
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    again = [*options, f"hydra.run.dir={folder / 'killed'}"]
    moments = {"training_step": (rng.randrange(EPOCHS), rng.randrange(BATCHES)), "validation_step": (EPOCHS - 1, 0)}
    code = run(again, log, ("signal", place, *moments.get(place, (0, 0)), signum))
    if code not in (0, 130 if signum == signal.SIGINT else 143) or (code == 0 and place not in moments):
        return [f"exit {code}"], 0, log.read_text()[-2000:]
    stopped, results = code != 0, folder / "killed" / "results.json"
    if stopped and (json.loads(results.read_text())["status"] != "stopped" if place != "setup" else results.exists()):
        return ["results.json"], stopped, ""
    if run(again, log):
        return ["exit"], stopped, log.read_text()[-2000:]
    return compared(folder), stopped, ""


def recovered(how, rng, folder):
    """Damage the last checkpoint of a run: that is told, and the one before it is taken."""
    from contextlib import redirect_stdout
    from io import StringIO

    from lstmopt.resume import find

    folder.mkdir(parents=True, exist_ok=True)
    kept = Path(tempfile.gettempdir()) / f"run-for-damage-{os.getpid()}"
    if not kept.exists() and run([*BASE, *SERIES, f"hydra.run.dir={kept}"], folder / "log.txt"):
        return ["the run as a whole"], 0, (folder / "log.txt").read_text()[-2000:]
    shutil.copytree(kept / "checkpoints", folder / "checkpoints")
    damaged(folder / "checkpoints" / "last.ckpt", how, rng)
    with redirect_stdout(StringIO()) as said:
        found = find("auto", folder / "checkpoints")
    good = found == str(folder / "checkpoints" / "previous.ckpt") and "last.ckpt is damaged" in said.getvalue()
    return [] if good else [f"{how}: {found}"], 1, said.getvalue()


def starts_in_one_second(number, folder):
    """That many runs begun at once, without a folder typed: what is wrong with what they leave."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        pids = [start(["trainer=debug", "trainer.max_epochs=1"], "log.txt") for _ in range(number)]
        codes = [ended(pid) for pid in pids]
    finally:
        os.chdir(before)
    results = [json.loads(path.read_text()) for path in (folder / "outputs").glob("*/*/results.json")]
    done = sum(result["status"] == "completed" for result in results)
    return [] if codes == [0] * number and done == number else [f"exit {codes}, {done} completed"]


def starts_on_one_folder(number, folder):
    """That many runs begun at once in one folder: one of them trains, the others are refused."""
    options = [*BASE, *SERIES, "trainer.max_epochs=40", "callbacks.early_stopping.patience=99"]
    pids = [start([*options, f"hydra.run.dir={folder / 'run'}"], folder / "log.txt") for _ in range(number)]
    codes = sorted(ended(pid) for pid in pids)
    return [] if codes == [0] + [2] * (number - 1) else [f"exit {codes}", (folder / "log.txt").read_text()[-2000:]]


WRITES = [0.0, 0.3, 0.9, 1, 2, 3, 4, 5]  # see plant: cut off after a part, not synchronised, not moved, generations


def damaged(path, how, rng):
    """Damage a file: cut it off, empty it, fill it with noise, or flip one bit."""
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: rng.randrange(1, len(content))]
    elif how == "empty":
        content = bytearray()
    elif how == "random":
        content = bytearray(rng.randbytes(len(content)))
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
