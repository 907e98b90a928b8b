"""What a class refuses when it is called is the user's mistake; a defect stays one."""

import pickle

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from lstmopt.build import make
from lstmopt.errors import ConfigError, DataError


def weights():
    return [("weight", nn.Parameter(torch.zeros(2, 2)))]


def node(target, **arguments):
    return OmegaConf.create({"_target_": target, "_partial_": True, **arguments})


@pytest.mark.parametrize(
    ("target", "arguments", "words"),
    [
        ("torch.optim.SGD", {"lr": 0.1, "dampening": 0.5, "nesterov": True, "momentum": 0.9}, "Nesterov momentum"),
        ("torch.optim.Adam", {"betas": [2.0, 0.9]}, "Invalid beta"),
        ("torch.optim.Adam", {"fused": True, "differentiable": True}, "`fused` does not support"),
        ("torch.optim.Adam", {"momentum": 0.9}, "unexpected keyword"),
        ("pytorch_optimizer.Lion", {"lr": -1.0}, "learning rate"),
    ],
)
def test_an_optimizer_that_refuses(target, arguments, words):
    with pytest.raises(ConfigError, match=f"{target}: .*({words})"):
        make(node(target, **arguments))(weights())


def test_an_optimizer_that_does_not():
    made = make(node("torch.optim.Adam", lr=0.1, foreach=None))
    assert made.keywords == {"lr": 0.1, "foreach": None}
    assert type(made(weights())) is torch.optim.Adam and made(weights(), lr=0.2).defaults["lr"] == 0.2
    assert type(pickle.loads(pickle.dumps(made))(weights())) is torch.optim.Adam


def raising(error):
    raise error


def test_a_defect_is_none_of_the_users():
    for error in (DataError("no file"), AttributeError("x"), AssertionError(), MemoryError()):
        with pytest.raises(type(error)):
            make(node(f"{__name__}.raising"))(error)


def test_a_schedule_that_refuses():
    schedule = make(OmegaConf.create({"_target_": "lstmopt.callbacks.cyclic.Cyclic", "base_lr": 0.1, "mode": "x"}))
    with pytest.raises(ConfigError, match=r"cyclic.Cyclic: mode is invalid"):
        schedule.make(torch.optim.Adam(weights()), None)
    schedule = make(OmegaConf.create({"_target_": "lstmopt.callbacks.step.Step"}))
    assert type(schedule.make(torch.optim.Adam(weights()), None)) is torch.optim.lr_scheduler.StepLR
