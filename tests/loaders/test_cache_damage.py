"""A cache that is not what was written is told, made again, and never used."""

import os
import subprocess

import pytest
import torch
from test_loaders import batches, datamodule, folder  # noqa: F401

from lstmopt.checkpoint_file import damage
from lstmopt.errors import ConfigError
from lstmopt.loaders import cached


def zeros(content):
    middle = len(content) // 2
    return content[:middle] + bytes(4096) + content[middle + 4096 :]


def bit(at):
    def flipped(content):
        changed = bytearray(content)
        changed[int(at * (len(content) - 1))] ^= 1
        return bytes(changed)

    return flipped


def older(content):
    """As it was before there was a digest at the end."""
    end = content.rindex(b"PK\x05\x06") + 20
    return content[:end] + b"\0\0"


DAMAGE = {
    "zeros": zeros,
    "all zeros": lambda content: bytes(len(content)),
    "empty": lambda content: b"",
    "a start": lambda content: content[:100],
    "one byte less": lambda content: content[:-1],
    "half": lambda content: content[: len(content) // 2],
    "older": older,
    **{f"a bit at {at}": bit(at) for at in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
}


@pytest.mark.parametrize("how", DAMAGE)
def test_it_is_made_again(how, folder, capsys):  # noqa: F811
    datamodule(folder, "co2", "cached")
    (kept,) = (folder / "cache").iterdir()
    whole = kept.read_bytes()
    assert len(whole) > 2 * 4096 and DAMAGE[how](whole) != whole
    kept.write_bytes(DAMAGE[how](whole))
    capsys.readouterr()
    given = list(batches(datamodule(folder, "co2", "cached")))
    said = capsys.readouterr().out
    assert f"{kept} is not whole and is made again: " in said and said.count("\n") == 1
    expected = list(batches(datamodule(folder, "co2", "resident")))
    assert len(given) == len(expected)
    assert all(torch.equal(a.x, b.x) and torch.equal(a.y, b.y) for a, b in zip(given, expected, strict=True))
    assert kept.read_bytes() == whole and list((folder / "cache").iterdir()) == [kept]
    datamodule(folder, "co2", "cached")
    assert capsys.readouterr().out == ""


def test_an_older_cache_can_be_read_by_torch(folder, tmp_path):  # noqa: F811
    """What is refused is that it has no digest."""
    datamodule(folder, "co2", "cached")
    (kept,) = (folder / "cache").iterdir()
    (tmp_path / "older.pt").write_bytes(older(kept.read_bytes()))
    assert torch.load(tmp_path / "older.pt", mmap=True, weights_only=True)["spec"]


def test_a_process_compares_a_file_once(folder, monkeypatch):  # noqa: F811
    datamodule(folder, "co2", "cached")
    compared = []
    monkeypatch.setattr(cached, "damage", lambda path: compared.append(path) or damage(path))
    for _ in range(3):
        datamodule(folder, "co2", "cached")
    assert len(compared) == 1


def test_it_is_on_the_disk_before_it_is_in_its_place(folder, monkeypatch):  # noqa: F811
    done, fsync, replace = [], os.fsync, os.replace

    def synced(handle):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")).split(".")[-1])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: done.append("move") or replace(*paths))
    datamodule(folder, "co2", "cached")
    assert done == ["part", "move", "cache"]


@pytest.mark.parametrize("size", ["4k", "8k"])
def test_a_full_disk_is_said(size, folder):  # noqa: F811
    disk = folder / "cache"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", disk], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs the rights of root")
    try:
        with pytest.raises(ConfigError, match="cannot be written to .*: No space left on device"):
            datamodule(folder, "co2", "cached")
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)
