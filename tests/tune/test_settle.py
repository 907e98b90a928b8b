"""The whole program with tune: nothing but the value reaches the run that follows."""

import json

import pytest
import torch

from lstmopt.tune import lr_finder

SMALL = ["data=mackey_glass", "data.length=400", "data.input_length=8", "data.horizon=2", "model.hidden_size=4"]
SMALL += ["trainer.max_epochs=2", "logger=csv", "loader=resident", "callbacks.picture=null"]


def result(folder):
    return json.loads((folder / "results.json").read_text())


def content(folder):
    """All of the last checkpoint but the names of files, and how long it took."""
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for state in checkpoint["callbacks"].values():
        for key in [key for key in state if "path" in key or key == "best_k_models"]:
            del state[key]
    assert checkpoint["run"].pop("seconds") > 0
    return checkpoint


def same(a, b, path=""):
    """Keys under which two nested structures differ."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [path]
    if isinstance(a, dict):
        keys = [path] if a.keys() != b.keys() else []
        return keys + [found for key in a if key in b for found in same(a[key], b[key], f"{path}.{key}")]
    if isinstance(a, list | tuple):
        return [found for k, (x, y) in enumerate(zip(a, b, strict=True)) for found in same(x, y, f"{path}.{k}")]
    return [] if a == b or (a != a and b != b) else [path]


def equal_runs(one, other):
    """Checkpoints to the bit, metrics and logged curves."""
    assert same(content(one), content(other)) == []
    assert result(one)["metrics"] == result(other)["metrics"]
    (curves,), (others,) = (list(folder.rglob("metrics.csv")) for folder in (one, other))
    rows = [[line for line in file.read_text().splitlines() if "throughput" not in line] for file in (curves, others)]
    assert len(rows[0]) == len(rows[1]) > 2


def test_the_run_is_to_the_bit_the_one_with_the_rate_typed(program):
    words = [*SMALL, "lr_scheduler=one_cycle", "data.batch_size=32"]
    done = program(*words, "tune.lr=true", "hydra.run.dir=tuned")
    assert done.returncode == 0, done.stderr
    tuned = program.folder / "tuned"
    rate = result(tuned)["tuned"]["optimizer.lr"]
    assert f"tune: optimizer.lr={rate:g} (3 range tests" in done.stdout
    assert (tuned / "tune_lr.png").read_bytes()[:4] == b"\x89PNG"
    typed = program(*words, f"optimizer.lr={rate:g}", "hydra.run.dir=typed")
    assert typed.returncode == 0, typed.stderr
    equal_runs(tuned, program.folder / "typed")
    assert content(tuned)["optimizer_states"][0]["param_groups"][0]["max_lr"] == pytest.approx(3 * rate)
    assert "tuned" not in result(program.folder / "typed")


def test_a_run_that_goes_on_keeps_its_rate_and_does_not_search(program, monkeypatch):
    assert program(*SMALL, "tune.lr=true", "hydra.run.dir=run").returncode == 0
    rate = result(program.folder / "run")["tuned"]["optimizer.lr"]
    monkeypatch.setattr(lr_finder, "find_lr", lambda cfg: pytest.fail("searched again"))
    longer = program(*SMALL, "tune.lr=true", "hydra.run.dir=run", "trainer.max_epochs=3")
    assert longer.returncode == 0, longer.stderr
    assert f"tune: optimizer.lr={rate:g} (as the run began)" in longer.stdout
    assert result(program.folder / "run")["tuned"] == {"optimizer.lr": rate}
    assert result(program.folder / "run")["epochs"] == 3


def test_batch_size_first_and_then_the_rate(program):
    words = [*SMALL, "tune.batch_size=true", "tune.lr=true", "tune.batch_size_mode=largest"]
    done = program(*words, "hydra.run.dir=tuned")
    assert done.returncode == 0, done.stderr
    tuned = result(program.folder / "tuned")["tuned"]
    assert list(tuned) == ["data.batch_size", "optimizer.lr"]
    assert done.stdout.index("tune: data.batch_size=") < done.stdout.index("tune: optimizer.lr=")
    assert {"tune_lr.png", "tune_batch_size.png"} <= {path.name for path in (program.folder / "tuned").iterdir()}
    typed = [f"{key}={value:g}" for key, value in tuned.items()]
    assert program(*SMALL, *typed, "hydra.run.dir=typed").returncode == 0
    equal_runs(program.folder / "tuned", program.folder / "typed")


def test_a_refusal_leaves_nothing(program, monkeypatch):
    def flat(cfg, test, steps, seed, datamodule=None):
        test.rates, test.losses = [1e-6 * 1.1**k for k in range(50)], [1.0] * 50

    monkeypatch.setattr(lr_finder, "short_run", flat)
    done = program(*SMALL, "tune.lr=true")
    assert done.returncode == 2
    assert "tune.lr finds no learning rate" in done.stderr and "type optimizer.lr=" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(program.folder.iterdir())


def test_a_search_cannot_vary_what_is_tuned(program):
    done = program("-m", "search=random", "search.n_trials=1", *SMALL, "tune.lr=true", "search/space=lstm")
    assert done.returncode == 2
    assert "optimizer.lr is given, and tune.lr=true would choose it" in done.stderr


def test_each_job_of_a_sweep_has_its_own_rate(program):
    done = program("-m", *SMALL, "tune.lr=true", "optimizer=adam,sgd", "hydra.sweep.dir=sweep", "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    rates = [result(program.folder / "sweep" / name)["tuned"]["optimizer.lr"] for name in "01"]
    assert rates[0] != rates[1]
