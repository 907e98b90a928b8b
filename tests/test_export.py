"""What `lstmopt-export` writes is JSON for any reader, also of runs with numbers that JSON lacks."""

import json
import math

import pytest
import torch

from lstmopt.checkpoint_file import read, write
from lstmopt.export import export


def strict(path):
    """As a reader of plain JSON takes it, which knows no NaN and no Infinity."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_run_whose_settings_hold_infinity(program):
    done = program("optimizer=prodigy", "trainer=debug", "model.hidden_size=8", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    done = program(program.folder / "run", "--to", program.folder / "out", command="lstmopt.export")
    assert done.returncode == 0, done.stderr
    told = strict(program.folder / "out" / "model.json")["settings"]
    assert told["optimizer.growth_rate"] == "inf" and float(told["optimizer.growth_rate"]) == math.inf
    saved = read(program.folder / "run" / "checkpoints" / "best.ckpt")["run"]["config"]
    assert told == saved | {"optimizer.growth_rate": "inf"}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_metrics_that_are_not_finite(number, tmp_path):
    content = {
        "state_dict": {"w": torch.ones(2)},
        "epoch": 1,
        "global_step": 2,
        "loops": {},
        "data_spec": {"mean": [0.5, number]},
        "run": {"config": {"lr": 0.1}, "metrics": {"val/loss": number, "val/mae": 0.25}, "versions": {}},
    }
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path / "checkpoints" / "best.ckpt", lambda file: torch.save(content, file))
    told = strict(export(tmp_path, tmp_path / "out")[1])
    assert told["settings"] == {"lr": 0.1} and told["metrics"]["val/mae"] == 0.25 and told["data"]["mean"][0] == 0.5
    for word in (told["metrics"]["val/loss"], told["data"]["mean"][1]):
        assert repr(float(word)) == repr(number)
