"""Runs that are killed at a chosen moment, and what they leave, compared with a run that was not."""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch

SILENT = ("throughput/", "hp_metric")  # tags that tell the time
TIMED = ("Throughput", "Threads")  # callbacks whose state is a measurement


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
        *moment, signum = position
        original = LSTMModule.training_step

        def asked(module, batch, batch_idx):
            if [module.current_epoch, batch_idx] == moment:
                os.kill(os.getpid(), signum)
            return original(module, batch, batch_idx)

        LSTMModule.training_step = asked
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


def left(folder):
    """All that a run leaves and that time has no part in, name by name."""
    found = {}
    for name in ("last", "best"):
        saved = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        found |= {f"{name} {key}": digest(saved[key]) for key in ("state_dict", "optimizer_states", "lr_schedulers")}
        found |= {f"{name} {key}": saved[key] for key in ("epoch", "global_step")}
        if name == "last":
            found["last loops"] = digest(plain_loops(saved["loops"]))
            states = {k: v for k, v in saved["callbacks"].items() if not k.startswith(TIMED)}
            found |= {f"last {k.partition('{')[0]}": digest(scrub(v, folder)) for k, v in states.items()}
            found["last train loss"] = digest(saved["train_loss"])
    found["curves"] = curves(folder)
    result = json.loads((folder / "results.json").read_text())
    found["results"] = {key: result[key] for key in ("status", "best", "metrics", "baseline", "epochs", "steps")}
    return found


def plain_loops(loops):
    """The counters of the fit loop; how often the data loader was asked is none of them."""
    fit = dict(loops["fit_loop"])
    return {key: value for key, value in fit.items() if "combined_loader" not in key}


def scrub(value, folder):
    """Without the folder's name."""
    if isinstance(value, dict):
        return {scrub(k, folder): scrub(v, folder) for k, v in value.items()}
    return value.replace(str(folder), "") if isinstance(value, str) else value


def digest(value):
    """SHA-256 of nested plain types and tensors, to the bit."""
    found = hashlib.sha256()

    def add(part):
        if isinstance(part, dict):
            for key in sorted(part, key=str):
                found.update(f"{key}:".encode())
                add(part[key])
        elif isinstance(part, list | tuple):
            for one in part:
                add(one)
        elif isinstance(part, torch.Tensor):
            found.update(f"{part.dtype}{tuple(part.shape)}".encode())
            found.update(part.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(part).encode())

    add(value)
    return found.hexdigest()[:16]


def curves(folder):
    """(step, value) of every scalar on the TensorBoard page."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if not tag.startswith(SILENT)]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


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


def signalled(options, signum, rng, folder):
    """A run that is asked to stop in its training: its exit code says so, and it goes on to the same end."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    if run([*options, f"hydra.run.dir={folder / 'whole'}"], log):
        return ["the run as a whole"], 0, log.read_text()[-2000:]
    again = [*options, f"hydra.run.dir={folder / 'killed'}"]
    where = ("signal", rng.randrange(EPOCHS), rng.randrange(BATCHES), signum)
    code = run(again, log, where)
    if code not in (0, 130 if signum == signal.SIGINT else 143):
        return [f"exit {code}"], 0, log.read_text()[-2000:]
    stopped = code != 0
    if stopped and json.loads((folder / "killed" / "results.json").read_text())["status"] != "stopped":
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
        found = find("auto", folder)
    good = found == str(folder / "checkpoints" / "previous.ckpt") and "last.ckpt is damaged" in said.getvalue()
    return [] if good else [f"{how}: {found}"], 1, said.getvalue()


EPOCHS, BATCHES = 3, 6
BASE = [
    f"trainer.max_epochs={EPOCHS}",
    "trainer.log_every_n_steps=2",
    "callbacks.picture=null",
    "callbacks.kernel_report=null",
    "model.hidden_size=6",
    "model.num_layers=2",
    "model.dropout=0.3",
    "callbacks.early_stopping.patience=2",
]
SERIES = ["data=mackey_glass", "data.input_length=8", "data.horizon=2", "data.length=700", "data.batch_size=32"]


def some_options(rng, text):
    """A random configuration; `text` is a file to read where the state is carried (tbptt)."""
    optimizer = rng.choice(["adam", "sgd", "rmsprop", "lbfgs"])
    options = [*BASE, f"optimizer={optimizer}", f"seed={rng.randrange(100)}"]
    options += [f"precision={rng.choice(['fp32', 'bf16_mixed'])}"]
    options += [f"trainer.val_check_interval={rng.choice(['1.0', '0.5'])}"]
    options += [f"lr_scheduler={rng.choice(['none', 'one_cycle', 'reduce_on_plateau', 'cosine'])}"]
    options += [f"callbacks.last_checkpoint.every_n_steps={rng.choice(['null', 1, 4])}"]
    if optimizer == "lbfgs":
        return [*options, *SERIES, f"trainer.limit_train_batches={BATCHES}", "gradient_clip=none"]
    options += [f"trainer.accumulate_grad_batches={rng.choice([1, 3])}"]
    if rng.random() < 0.4:
        carried = ["data=text", f"data.path={text}", "data.sequence_length=8", "data.batch_size=8", "memory=tbptt"]
        return [*options, *carried, f"trainer.limit_train_batches={BATCHES}", "trainer.limit_val_batches=3"]
    return [*options, *SERIES, f"trainer.limit_train_batches={BATCHES}"]


def some_kills(rng, number=4):
    """Positions in the order of time: first, last and other batches, and validation steps."""
    kills = set()
    while len(kills) < number:
        epoch = rng.randrange(EPOCHS)
        where = rng.choice(["training_step"] * 4 + ["validation_step"])
        batch = rng.choice([0, 1, BATCHES - 1, rng.randrange(BATCHES)]) if where == "training_step" else 0
        kills.add((epoch, where == "validation_step", batch, where))
    return [(where, epoch, batch) for epoch, _, batch, where in sorted(kills)]


def a_text(folder):
    path = Path(folder) / "text.txt"
    rng, words = random.Random(0), ["to", "be", "or", "not", "that", "is", "the", "question"]
    path.write_text(" ".join(rng.choice(words) for _ in range(1500)))
    return path


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
