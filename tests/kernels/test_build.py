"""How the compiled kernel comes about, and what is done where it cannot."""

import os
import shutil
import subprocess
import sys

import pytest

from lstmopt.kernels import build
from lstmopt.kernels.build import COMPILERS, Unavailable, library

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason=f"the kernel is compiled, and there is none of {COMPILERS}"
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A cache of its own, and nothing loaded before or left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    yield tmp_path / "lstmopt" / "kernels"
    library.cache_clear()


@needs_compiler
def test_compiled_once_for_all_processes(home):
    library("lstm_cpu")
    (built,) = home.iterdir()
    before = built.stat()
    assert before.st_mode & 0o022 == 0 and home.stat().st_mode & 0o777 == 0o700
    code = "import torch; from lstmopt.kernels.build import library; print(library('lstm_cpu').lstm_lanes())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert int(said.stdout) in (4, 8, 16)
    assert [*home.iterdir()] == [built] and built.stat().st_mtime_ns == before.st_mtime_ns


@needs_compiler
def test_another_cpu_or_source_is_another_file(home, monkeypatch, tmp_path):
    library("lstm_cpu")
    for changed, found in (("lstm_cpu.cpp", 2), ("lanes.h", 3)):
        other = tmp_path / changed[:5]
        shutil.copytree(build.SOURCES, other)
        with open(other / changed, "a") as source:
            source.write("\n// changed\n")
        monkeypatch.setattr(build, "SOURCES", other)
        library.cache_clear()
        library("lstm_cpu")
        assert len([*home.iterdir()]) == found


@needs_compiler
def test_a_folder_that_others_may_write_to_is_not_used(home):
    home.mkdir(parents=True)
    home.chmod(0o777)
    assert library("lstm_cpu").lstm_lanes() in (4, 8, 16)
    assert not [*home.iterdir()]


@needs_compiler
def test_without_a_home_directory_it_is_made_for_this_process(home, monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(build.Path, "home", none)
    assert library("lstm_cpu").lstm_lanes() in (4, 8, 16)
    assert not home.exists()


@needs_compiler
def test_a_damaged_file_is_made_again(home):
    code = "import torch; from lstmopt.kernels.build import library; print(library('lstm_cpu').lstm_lanes())"
    for _ in range(2):  # in processes of their own: a library that is loaded is not read again
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
        assert done.returncode == 0, done.stderr
        (built,) = home.iterdir()
        assert built.stat().st_size > 1000
        built.write_bytes(b"no library")


def test_no_compiler(monkeypatch, home):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=r"no C\+\+ compiler \(c\+\+, g\+\+, clang\+\+\) on the PATH"):
        library("lstm_cpu")
    assert not home.exists()


def test_a_compiler_that_fails_leaves_nothing(monkeypatch, tmp_path, home):
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "c++"
    script.write_text("#!/bin/sh\necho 'x.cpp:1: error: what is this' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    with pytest.raises(Unavailable, match="does not compile it: x.cpp:1: error: what is this"):
        library("lstm_cpu")
    assert not [*home.iterdir()]
