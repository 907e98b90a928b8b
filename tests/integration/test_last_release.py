"""A checkpoint of each release is kept, and goes on in the next one."""

import shutil
from pathlib import Path

import pytest
import torch

from lstmopt import results
from lstmopt.checkpoint_file import damage, read

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("checkpoint-*.ckpt"))
# python train.py with these, two epochs; last.ckpt of it
MADE_BY = ["data=mackey_glass", "data.length=400", "data.input_length=8", "data.horizon=2", "data.batch_size=32"]
MADE_BY += ["model.hidden_size=4", "lr_scheduler=reduce_on_plateau", "logger=none"]
MADE_BY += ["optimizer.lr=0.001", "model.forget_bias=null", "model.orthogonal=false"]  # its defaults


def test_there_is_one():
    assert FIXTURES


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_it_goes_on(fixture, program):
    assert damage(fixture) is None
    before = read(fixture)
    assert before["run"]["format"] == 1 and before["run"]["versions"]["lstmopt"] == fixture.stem.removeprefix(
        "checkpoint-"
    )
    shutil.copy(fixture, program.folder / "old.ckpt")
    done = program(*MADE_BY, "resume=old.ckpt", "trainer.max_epochs=3", "hydra.run.dir=run")
    assert done.returncode == 0 and "going on from old.ckpt" in done.stdout, done.stderr
    same = before["run"]["versions"] == results.versions()
    assert done.stdout.count("the same to the bit is not promised") == 1 - same
    after = read(program.folder / "run" / "checkpoints" / "last.ckpt")
    assert after["global_step"] == before["global_step"] * 3 // 2
    assert not torch.equal(after["state_dict"]["task.head.weight"], before["state_dict"]["task.head.weight"])
