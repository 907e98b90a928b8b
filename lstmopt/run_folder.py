"""A run folder that belongs to one process. Imported at every start: nothing heavy here."""

import fcntl
import hashlib
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from lstmopt.distributed import ranks
from lstmopt.errors import ConfigError

LOCK = ".lock"
ASIDE = tuple(  # what may differ between two commands that work at one study
    f"search.{key}="
    for key in (
        "n_trials",
        "timeout",
        "n_jobs",
        "study",
        "storage",
        "max_failure_rate",
        "max_retries",
        "heartbeat",
        "report",
    )
)
EVENTS = "events.out.*"  # TensorBoard's
_held: dict[Path, int] = {}  # file descriptors of the locks of this process
_within: dict[Path, set[Path]] = {}  # folders of checkpoints that are held for a run folder
_curves: dict[Path, set[Path]] = {}  # that were in these folders before


class RunFolder(Callback):
    """Hydra calls it before it writes anything: a folder that nobody else has, and a lock on it.

    The folder of a date and time gets a number behind it where another run began in the same second. A folder that was
    typed is taken as it is, so that a run goes on in it, and refused while another process is at work there.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before a single run."""
        if ranks.several(config) and ranks.started_outside():
            _join(config)
        _settle(config, "run")
        if not ranks.is_first(config):
            return
        try:
            hold(Path(config.hydra.run.dir).absolute())
        except ConfigError as error:  # Hydra would make a warning of it
            print(f"lstmopt: {error}", file=sys.stderr)
            sys.exit(2)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Before the first job; each of them holds its own folder. That of a search is where it was before."""
        if ranks.several(config) and ranks.started_outside():
            _end(
                "each of these processes would begin a sweep of its own",
                "leave -m out, or leave out srun and type hydra/launcher=submitit_slurm",
            )
        if config.search.sampler is None:
            _settle(config, "sweep")
        else:
            _name_study(config)


def _join(config: DictConfig) -> None:
    """The processes of a training that somebody else started: one folder, written to by the first alone."""
    folder = ranks.common_folder()
    if folder is None and not _typed(config, "run"):
        _end("the processes of this training would each take another folder", "type hydra.run.dir=FOLDER")
    with read_write(config.hydra), open_dict(config.hydra):
        if not _typed(config, "run"):
            config.hydra.run.dir = folder
        if not ranks.is_first(config):
            config.hydra.output_subdir = None


def _end(problem: str, hint: str) -> NoReturn:
    print(f"lstmopt: {ConfigError(problem, hint)}", file=sys.stderr)
    sys.exit(2)


def _typed(config: DictConfig, kind: str) -> bool:
    return any(override.lstrip("+").startswith(f"hydra.{kind}.dir=") for override in config.hydra.overrides.hydra)


def _settle(config: DictConfig, kind: str) -> None:
    """Make the folder that was not typed, and write down its name."""
    if _typed(config, kind) or (ranks.several(config) and ranks.started_outside()):
        return
    node = config.hydra[kind]
    path = unique(Path(node.dir))
    with read_write(config.hydra), open_dict(config.hydra):
        node.dir = str(path)


def _name_study(config: DictConfig) -> None:
    """Name a search after what was typed for its trials: the same words find it again, in the same folder."""
    typed = [word for word in config.hydra.overrides.task if not word.startswith(ASIDE)]
    if config.search.study is None:
        digest = hashlib.sha256("\n".join(sorted(typed)).encode()).hexdigest()[:6]
        chosen = config.hydra.runtime.choices
        with open_dict(config):
            config.search.study = f"{chosen['search']}-{chosen['data']}-{digest}"
    if not any(word.startswith("hydra.sweep.dir=") for word in config.hydra.overrides.hydra):
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = f"multirun/{config.search.study}"


def unique(path: Path) -> Path:
    """Make a folder that was not there: `path`, or with -2, -3 ... behind it."""
    number, tried = 1, path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                tried.mkdir()
                return tried
            except FileExistsError:
                number += 1
                tried = path.with_name(f"{path.name}-{number}")
    except (OSError, ValueError):
        return path  # Hydra says what is wrong


def hold(folder: Path, key: str = "hydra.run.dir") -> None:
    """Lock a folder until this process ends, however it ends; a process that holds it already goes on.

    Args:
        folder: it is made if it is not there.
        key: what is typed for another one.

    Raises:
        ConfigError: another process holds it, or it cannot be written to.
    """
    if folder in _held:
        return
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _lock(path)
        _curves[folder] = set(folder.glob(EVENTS))
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        os.fsync(handle)
    except BlockingIOError:
        raise ConfigError(
            f"{folder} is in use by {path.read_text().strip() or 'another process'}",
            f"wait for its end, or type another {key}=FOLDER",
        ) from None
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot write to {_shown(folder)}: {reason}", f"type {key}=FOLDER") from None
    _held[folder] = handle


def hold_checkpoints(folder: Path, run: Path, key: str | None, needed: int) -> None:
    """Lock a folder of checkpoints as long as a run holds its own folder, for two runs can be given the same.

    Args:
        folder: of the checkpoints.
        run: the run folder.
        key: by which another folder than that of the run was typed, which then is looked at for room; None if none was.
        needed: bytes of one checkpoint.

    Raises:
        ConfigError: another process holds it, it cannot be written to, or there is too little room.
    """
    hold(folder.resolve(), key or "hydra.run.dir")
    _within.setdefault(run.resolve(), set()).add(folder.resolve())
    if key:
        room(folder, needed, key)


def release_checkpoints(run: Path) -> None:
    """Remove the locks of a Trainer's folders, unless a run holds them to the end of its test."""
    if run.resolve() not in [folder.resolve() for folder in _held]:
        release(run)


def _shown(folder: Path) -> str:
    return str(folder) if str(folder).isprintable() else repr(str(folder))


def _lock(path: Path) -> int:
    """A lock of the system, which a process that is killed gives back, on the file that has this name now."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(handle).st_ino == path.stat().st_ino:
                return handle
        except OSError as error:
            os.close(handle)
            raise BlockingIOError from error
        os.close(handle)


def at_work(folder: Path) -> bool:
    """Whether another process holds a folder."""
    if folder in _held or not (folder / LOCK).is_file():
        return False
    try:
        os.close(_lock(folder / LOCK))
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def still_there(folder: Path) -> None:
    """Make sure that nobody removed files of the run while it was at work: the lock goes with them.

    Raises:
        ConfigError: the lock is gone, so `best.ckpt` may be gone too.
    """
    try:
        whole = os.path.samestat(os.fstat(_held[folder]), os.stat(folder / LOCK))
    except OSError:
        whole = False
    if not whole:
        raise ConfigError(f"files in {_shown(folder)} were removed during the run", "run it again")


def release(folder: Path) -> None:
    """Remove the lock, and those of the run's folders of checkpoints."""
    for other in _within.pop(folder.resolve(), set()):
        release(other)
    handle = _held.pop(folder, None)
    if handle is not None:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(handle)


def room(folder: Path, needed: int, key: str = "hydra.run.dir") -> None:
    """Make sure that the checkpoints will fit.

    Args:
        folder: the run folder, or one of checkpoints.
        needed: bytes of one checkpoint; three are kept while a new one is written.
        key: what is typed for another folder.

    Raises:
        ConfigError: the disk has too little room.
    """
    free = shutil.disk_usage(folder).free
    if free < 4 * needed:
        raise ConfigError(
            f"{folder} has room for {free / 1e6:.3f} MB, and checkpoints take {4 * needed / 1e6:.3f} MB",
            f"make room, or type {key}=FOLDER on another disk",
        )


def remove_unused(folder: Path) -> None:
    """Remove a run folder that holds nothing but Hydra's copy of the config, its lock, and curves of this process."""
    own = set(folder.glob(EVENTS)) - _curves.get(folder, set())
    left = [path for path in folder.glob("*") if path.name not in (".hydra", LOCK, "checkpoints") and path not in own]
    if folder.is_dir() and not left and all(path.name == LOCK for path in folder.glob("checkpoints/*")):
        release(folder)
        shutil.rmtree(folder)
        for parent in folder.parents[:2]:  # the date folder, and outputs/
            if any(parent.iterdir()) or parent == Path.cwd():
                break
            parent.rmdir()
