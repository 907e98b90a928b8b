"""The compiled kernels of this package: built once for each CPU, kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

SOURCES = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")


class Unavailable(RuntimeError):
    """The kernel cannot be had here; the message says why."""


@functools.cache
def library(name: str, *more: str) -> ctypes.CDLL:
    """`NAME.cpp` as a library of this process: from the cache, or compiled now (with `more` flags) in two seconds.

    The file is found by a hash of the source, the flags, the compiler and the CPU. It is loaded only from a folder that
    belongs to this user and that nobody else may write to (`lstmopt/kernels` in `$XDG_CACHE_HOME` or `~/.cache`);
    where there is none, it is compiled for this process alone.

    Raises:
        Unavailable: there is no C++ compiler, or it does not compile the source, or the result cannot be loaded.
    """
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise Unavailable(f"no C++ compiler ({', '.join(COMPILERS)}) on the PATH")
    folder = None
    with suppress(RuntimeError):  # no home directory
        folder = _private(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lstmopt" / "kernels")
    if folder is not None:
        built = folder / f"{name}-{_key(name, compiler, more)}.so"
        with suppress(OSError):  # it is not there, or damaged
            return ctypes.CDLL(str(built))
    try:
        if folder is not None:
            _compile(name, compiler, built, more)
            return ctypes.CDLL(str(built))
        with tempfile.TemporaryDirectory() as own:
            built = Path(own) / f"{name}.so"
            _compile(name, compiler, built, more)
            return ctypes.CDLL(str(built))
    except OSError as error:
        raise Unavailable(f"what {compiler} makes cannot be kept or loaded: {error}") from None


def _private(folder: Path) -> Path | None:
    """The folder, made if it has to be; None if another user could put files into it, or nothing can be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError:
        return None
    safe = found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if safe and os.access(folder, os.W_OK) else None


def _key(name: str, compiler: str, more: tuple[str, ...]) -> str:
    """What the compiled file depends on."""
    try:
        about = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        cpu = "\n".join(line for line in about.splitlines() if line.startswith(("model name", "flags", "Features")))
    except OSError:
        cpu = platform.processor()
    real = Path(compiler).resolve()
    sources = [path.read_text() for path in (SOURCES / f"{name}.cpp", *sorted(SOURCES.glob("*.h")))]
    parts = [*sources, *FLAGS, *more, str(real), str(real.stat().st_mtime_ns), platform.machine(), cpu]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _compile(name: str, compiler: str, to: Path, more: tuple[str, ...]) -> None:
    """Compile into `to`, whole or not at all."""
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        made = Path(folder) / to.name
        command = [compiler, *FLAGS, *more, str(SOURCES / f"{name}.cpp"), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[-200:])
            raise Unavailable(f"{compiler} does not compile it: {said}")
        made.replace(to)
