"""Checkpoint files that are whole or not there, and that tell when they are damaged."""

import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lstmopt import __version__
from lstmopt.errors import CheckpointError

FORMAT = 2  # of what is written
SEAL = b"lstmopt sha256 "
LENGTH = len(SEAL) + 64  # bytes of a seal: the word and the digest in hexadecimal
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError)


class CheckpointFile(TorchCheckpointIO):
    """How the Trainer writes and reads checkpoints; used by `LastCheckpoint` and by the program.

    A file is written beside its place, brought to the disk, and moved into its place, so that a reader finds the old
    one or the new one. It ends with the SHA-256 of all its bytes, as the comment of the zip archive that `torch.save`
    makes; `torch.load` reads it like any other. It is read with `weights_only=True`, always.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a file.

        Raises:
            CheckpointError: the disk is full, the folder is gone or may not be written to.
        """
        try:
            write(Path(path), lambda file: torch.save(checkpoint, file))
        except OSError as error:
            raise CheckpointError(*_cannot_write(Path(path), error, checkpoint)) from error
        except RuntimeError as error:  # torch's answer to a disk that is full
            if not isinstance(error.__context__, OSError):
                raise
            raise CheckpointError(*_cannot_write(Path(path), error.__context__, checkpoint)) from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a file as plain data and tensors, whatever `weights_only` is; one of another program has no checksum.

        Raises:
            CheckpointError: it is damaged.
        """
        with open(path, "rb") as file:
            file.seek(-min(LENGTH, file.seek(0, os.SEEK_END)), os.SEEK_END)
            sealed = file.read(len(SEAL)) == SEAL
        return read(Path(path)) if sealed else torch.load(path, map_location="cpu", weights_only=True)


def write(path: Path, save: Callable[[BinaryIO], Any]) -> None:
    """Write a sealed zip archive, whole or not at all.

    Args:
        path: its place; the folder is there.
        save: writes the archive, without a comment.

    Raises:
        OSError: as the system says.
    """
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            save(file)
            seal(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(part, 0o644)
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def seal(file: BinaryIO) -> None:
    """Append the digest of a zip archive as its comment."""
    file.seek(-2, os.SEEK_END)  # the length of the comment, which is empty
    file.write(LENGTH.to_bytes(2, "little"))
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    file.seek(0, os.SEEK_END)
    file.write(SEAL + digest.encode())


def damage(path: Path) -> str | None:
    """What is wrong with the bytes of a file; None where they are those that were written."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= LENGTH:
                return f"it has {size} bytes"
            file.seek(-LENGTH, os.SEEK_END)
            found = file.read()
            if not found.startswith(SEAL):
                return "it is cut off, or no checkpoint of lstmopt"
            digest, left = hashlib.sha256(), size - LENGTH
            file.seek(0)
            while left and (piece := file.read(min(left, 2**20))):
                digest.update(piece)
                left -= len(piece)
    except OSError as error:
        return error.strerror or str(error)
    return None if digest.hexdigest().encode() == found[len(SEAL) :] else "its checksum is another"


def read(path: Path) -> dict[str, Any]:
    """A checkpoint as plain data and tensors on the CPU.

    Raises:
        CheckpointError: no such file, damaged, no checkpoint of a run, or one of a newer format.
    """
    instead = "type resume=none to train anew, or resume=PATH of another checkpoint"
    problem = damage(path)
    if problem:
        raise CheckpointError(f"{path} is not a checkpoint of a run, or it is damaged: {problem}", instead)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _know(path, checkpoint)
        checkpoint["state_dict"], checkpoint["global_step"], checkpoint["epoch"], checkpoint["loops"]
    except (*UNREADABLE, AttributeError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of a run", instead) from error
    return checkpoint


def _know(path: Path, checkpoint: dict[str, Any]) -> None:
    """Make sure that a checkpoint's format is known.

    Raises:
        CheckpointError: it is newer than this program.
    """
    run = checkpoint.get("run", {})
    if run.get("format", 1) > FORMAT:
        wrote = str(run["versions"]["lstmopt"])[:60]
        raise CheckpointError(
            f"{path} has format {run['format']}, written by lstmopt {wrote}; this is lstmopt {__version__}, which"
            f" reads formats up to {FORMAT}",
            f"install lstmopt {wrote} or a newer one, or type resume=none to train anew",
        )


def keep_previous(path: Path, previous: Path) -> None:
    """Give a file a second name, so that it outlives what is moved into its place; the old `previous` goes."""
    link = previous.with_suffix(".part")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without links
        shutil.copy2(path, link)
    os.replace(link, previous)
    link.unlink(missing_ok=True)  # two names of one file are not moved


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def nbytes(content: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list | tuple) else ()
    return sum(map(nbytes, parts))


def _cannot_write(path: Path, error: OSError, checkpoint: dict[str, Any]) -> tuple[str, str]:
    problem = f"cannot write {path}: {error.strerror or error}"
    if path.parent.is_dir():
        free = shutil.disk_usage(path.parent).free
        problem += f"; it takes {nbytes(checkpoint) / 1e6:.3f} MB, and {free / 1e6:.3f} MB are free"
    return problem, "make room, then type hydra.run.dir=FOLDER of this run: it goes on from its last good checkpoint"
