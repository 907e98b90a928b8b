"""Checkpoints that would run code, and secrets that would be written down."""

import functools
import json
import os
import re
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import run_program
from safetensors.torch import load_file

from lstmopt.checkpoint_file import damage, read, write
from lstmopt.errors import CheckpointError, ConfigError
from lstmopt.export import export

ROOT = Path(__file__).parents[2]
SHORT = ["trainer=debug", "model.hidden_size=8"]


class Reduce:
    def __reduce__(self):
        return os.system, ("touch canary",)


def touch(path):
    Path(path).write_text("executed")


def hostile(kind, good):
    content = dict(good)
    if kind == "reduce":
        content["state_dict"] = content["state_dict"] | {"x": Reduce()}
    elif kind == "_instantiator":
        content["hyper_parameters"] = {"_instantiator": "os.system", "command": "touch canary"}
    elif kind == "_class_path":
        content["hyper_parameters"] = {
            "_class_path": "os.system",
            "init_args": {"command": "touch canary"},
            "x": Reduce(),
        }
    elif kind == "partial":
        content["callbacks"] = {"x": functools.partial(os.system, "touch canary")}
    return content


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    assert run_program(*SHORT, f"hydra.run.dir={folder}", cwd=folder).returncode == 0
    return folder


COMMANDS = {
    "train": lambda path: ["resume=" + str(path), "hydra.run.dir=new"],
    "go on": lambda path: [f"hydra.run.dir={path.parents[1]}"],
}


@pytest.mark.parametrize("sealed", [True, False], ids=["sealed", "not sealed"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["reduce", "_instantiator", "_class_path", "partial"])
def test_nothing_in_a_checkpoint_is_executed(kind, command, sealed, run, program, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = program.folder / "gift" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    content = hostile(kind, read(run / "checkpoints" / "last.ckpt"))
    if sealed:
        write(path, lambda file: torch.save(content, file))
    else:
        torch.save(content, path)
    (path.parent / "best.ckpt").write_bytes(path.read_bytes())
    done = program(*SHORT, "trainer.max_epochs=4", *COMMANDS[command](path))
    assert not (program.folder / "canary").exists()
    if kind == "_instantiator" and sealed:  # plain words, which nobody reads
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 2 and len(done.stderr.splitlines()) <= 5, done.stderr
        with pytest.raises(CheckpointError):
            export(path.parents[1], program.folder / "out")
    assert not (program.folder / "canary").exists()


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:9/x.ckpt", "https://a.example/x.ckpt", "s3://b/x", "file:///etc/x"]
)
def test_no_checkpoint_from_elsewhere(place, program):
    done = program(*SHORT, f"resume={place}")
    assert done.returncode == 2 and "is not a file of this machine" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_every_load_is_of_plain_data_alone():
    """In the source: no other way to read a pickle."""
    loads = 0
    for path in [*ROOT.glob("lstmopt/**/*.py"), *ROOT.glob("scripts/**/*.py")]:
        text = path.read_text()
        assert not re.search(r"weights_only=False|allow_pickle=True|read_pickle|cPickle|joblib\.load", text), path
        for call in re.findall(r"torch\.load\([^\n]*", text):
            assert "weights_only=True" in call, (path, call)
            loads += 1
        for call in re.findall(r"\.(?:fit|test|validate)\([^\n]*ckpt_path[^\n]*", text):
            assert "weights_only=True" in call, (path, call)
        if re.search(r"\bpickle\.loads?\(", text):  # on their way to our own processes: numbers of samples, the config
            assert path.name in ("batch_loader.py", "child.py")
    assert loads >= 3
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("lstmopt/**/*.py"), ROOT / "Makefile"]
    assert not any("bind_all" in path.read_text() for path in pages)


def test_export_is_the_weights_to_the_bit(run, tmp_path):
    weights, facts = export(run, tmp_path / "out")
    saved = read(run / "checkpoints" / "best.ckpt")
    found = load_file(weights)
    assert found.keys() == saved["state_dict"].keys()
    assert all(torch.equal(found[name], value) for name, value in saved["state_dict"].items())
    told = json.loads(facts.read_text())
    assert told["data"]["target_names"] == saved["data_spec"]["target_names"] and told["data"]["mean"]
    assert told["settings"]["model.hidden_size"] == 8 and told["versions"]["torch"] == torch.__version__
    import hashlib

    assert told["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert not zipfile.is_zipfile(weights)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.safetensors"]


def test_mistakes_of_exporting(run, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="there is no"):
        export(tmp_path, tmp_path / "out")
    (tmp_path / "checkpoints").mkdir()
    content = bytearray((run / "checkpoints" / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(content)
    assert damage(tmp_path / "checkpoints" / "best.ckpt")
    with pytest.raises(CheckpointError, match="checksum"):
        export(tmp_path, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        export(run, tmp_path / "file" / "out")
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(ConfigError, match="safetensors") as caught:
        export(run, tmp_path / "out")
    assert "pip install 'lstmopt[export]'" in caught.value.hint


CANARY = "canary-5e1f-secret"


@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_a_secret_of_the_environment_is_in_no_file(sweep, program, monkeypatch):
    monkeypatch.setenv("SECRET", CANARY)
    monkeypatch.setenv("RATE", "0.00123456")
    (program.folder / "my" / "experiment").mkdir(parents=True)
    (program.folder / "my" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nnote: ${oc.env:SECRET}\noptimizer:\n  lr: ${oc.decode:${oc.env:RATE}}\n"
    )
    typed = ["--config-dir", "my", "experiment=mine", "+more=${oc.env:SECRET}"]
    folder = ["seed=0,1", "hydra.sweep.dir=out"] if sweep else ["hydra.run.dir=out"]
    done = program(*(["-m"] if sweep else []), *typed, *SHORT, *folder)
    assert done.returncode == 0, done.stderr
    files = [path for path in (program.folder / "out").rglob("*") if path.is_file()]
    assert len(files) >= 8 * (1 + sweep)
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in done.stdout + done.stderr
    run = program.folder / "out" / "0" if sweep else program.folder / "out"
    _, facts = export(run, program.folder / "exported")
    assert CANARY not in facts.read_text()
    assert read(run / "checkpoints" / "last.ckpt")["run"]["config"]["optimizer.lr"] == "${oc.decode:${oc.env:RATE}}"
