"""The data memory-mapped from a cache."""

import hashlib
import json
import os
import tempfile
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch

from lstmopt.checkpoint_file import damage, seal, sync_folder
from lstmopt.data.batch import DataSpec, Split
from lstmopt.data.splits import Sequences, Text, Windows
from lstmopt.errors import ConfigError
from lstmopt.loaders.resident import Resident

if TYPE_CHECKING:
    from lstmopt.data.datamodule import DataModule

KINDS: dict[str, type[Split]] = {kind.__name__: kind for kind in (Windows, Sequences, Text)}
FORMAT = 4  # of what is written; another one is another key
SOUND: set[tuple[int, ...]] = set()  # the files that this process has checked

OTHER = {  # attributes of a data module that its arrays do not depend on
    "batch_size",
    "loader",
    "spec",
    "splits",
    "cut",
    "trainer",
    "prepare_data_per_node",
    "allow_zero_length_dataloader_with_multiple_devices",
    "_log_hyperparams",
    "_hparams_name",
}


class Cached(Resident):
    """Keep the prepared arrays in a file, and map it into memory: read and checked once, and then never again.

    The file's name is the digest of what it was made from: the data option with its settings, the content of its
    files, and the version of lstmopt. It is written beside, brought to the disk and moved into place, so that a reader
    never meets a part of it, and of two processes that write the same one, either may be the last. It ends with the
    SHA-256 of its bytes, which each process compares once, when it opens the file; one that is damaged is told, and
    made again. Warnings about the data are kept with them, and told each time. Pages are read when
    a batch asks for them, and given back where memory is short. The folder may be deleted at any time.

    Args:
        folder: where the files are; None is `lstmopt` in `$XDG_CACHE_HOME` or `~/.cache`.

    Raises:
        ConfigError: the data option does not say which files it reads, a setting of it is no plain number, text, list
            or dict, or the folder cannot be written to.
    """

    def __init__(self, folder: str | None = None) -> None:
        try:
            home = folder or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        except RuntimeError:
            raise ConfigError("there is no home directory for the cache", "type loader.folder=FOLDER") from None
        self.folder = Path(folder) if folder else Path(home) / "lstmopt"

    def load(self, datamodule: "DataModule") -> tuple[DataSpec, dict[str, Split]]:
        """From the cache; what is not there, or not whole, is made."""
        path = self.folder / f"{key(datamodule)}.pt"
        if path.is_file():
            try:
                check(path)
                content = torch.load(path, mmap=True, weights_only=True)
                found, messages = restored(content), [str(message) for message in content["messages"]]
            except (RuntimeError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
                print(f"{path} is not whole and is made again: {str(error).splitlines()[0]}")
            else:
                for message in messages:
                    warnings.warn(message, stacklevel=2)
                return found
        spec, splits, messages = made(datamodule)
        try:
            self._write(path, stored(spec, splits) | {"messages": messages})
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__  # torch's answer to a disk that is full
            if not isinstance(cause, OSError):
                raise
            raise ConfigError(
                f"the cache cannot be written to {self.folder}: {cause.strerror}",
                "type loader.folder=FOLDER, or loader=resident",
            ) from None
        return restored(torch.load(path, mmap=True, weights_only=True))

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(handle, "w+b") as file:
                torch.save(content, file)
                seal(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            sync_folder(self.folder)
        finally:
            Path(part).unlink(missing_ok=True)


def check(path: Path) -> None:
    """Compare the bytes of a file with their digest, once in a process.

    Raises:
        ValueError: they are not those that were written.
    """
    now = path.stat()
    identity = now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns
    if identity not in SOUND:
        problem = damage(path)
        if problem:
            raise ValueError(problem)
        SOUND.add(identity)


def key(datamodule: "DataModule") -> str:
    """What the prepared arrays depend on, as a digest."""
    files = datamodule.files()
    if files is None:
        name = type(datamodule).__name__
        raise ConfigError(f"{name} does not say which files it reads, so that no cache is safe", "type loader=resident")
    digest = hashlib.sha256()
    settings = {k: plain(v, f"{type(datamodule).__name__}.{k}") for k, v in vars(datamodule).items() if k not in OTHER}
    about = [FORMAT, version("torch"), _lstmopt(), type(datamodule).__module__, type(datamodule).__qualname__, settings]
    digest.update(json.dumps(about, sort_keys=True).encode())
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _lstmopt() -> str:
    from lstmopt import __version__

    return __version__


def plain(value: Any, name: str) -> Any:
    """A setting as JSON, in which no two are the same.

    Raises:
        ConfigError: it is none of the types that a key can be made of.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PurePath):
        return ["path", str(value)]
    if isinstance(value, dict):
        return ["dict", [[plain(k, name), plain(v, f"{name}[{k!r}]")] for k, v in value.items()]]
    if isinstance(value, list | tuple):
        return [
            "tuple" if isinstance(value, tuple) else "list",
            [plain(v, f"{name}[{k}]") for k, v in enumerate(value)],
        ]
    raise ConfigError(
        f"{name} is a {type(value).__name__}, which says nothing plain, so that no cache is safe",
        "type loader=resident, or keep numbers, text, lists and dicts alone as settings",
    )


def made(datamodule: "DataModule") -> tuple[DataSpec, dict[str, Split], list[str]]:
    """From the files; and what is said about them meanwhile."""
    said: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            spec, splits = datamodule.load()
    finally:
        for one in said:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return spec, splits, [str(one.message) for one in said if one.category is UserWarning]


def stored(spec: DataSpec, splits: dict[str, Split]) -> dict[str, Any]:
    """Plain types and tensors alone; parts that share a tensor share it in the file as well."""
    parts = {}
    for name, split in splits.items():
        if KINDS.get(type(split).__name__) is not type(split):
            raise ConfigError(
                f"the cache cannot make a {type(split).__name__}, a split of your own, again", "type loader=resident"
            )
        arguments = split.arguments()
        ranges = {k: [[r.start, r.stop, r.step] for r in v] for k, v in arguments.items() if k == "ranges"}
        parts[name] = {"kind": type(split).__name__, "arguments": arguments | ranges}
    return {"spec": asdict(spec), "parts": parts}


def restored(content: dict[str, Any]) -> tuple[DataSpec, dict[str, Split]]:
    """From what `stored` made."""
    splits = {}
    for name, part in content["parts"].items():
        arguments = part["arguments"]
        if "ranges" in arguments:
            arguments["ranges"] = [range(*bounds) for bounds in arguments["ranges"]]
        splits[name] = KINDS[part["kind"]](**arguments)
    return DataSpec(**content["spec"]), splits
