"""Settings that may change within a run, beside those of an optimizer that was made with them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from lstmopt.errors import CheckpointError
from lstmopt.optim.muon import Muon
from lstmopt.run_facts import RunFacts, changes

RUN = {"config": {"optimizer.lr": 0.1, "optimizer.weight_decay": 0.0}, "format": 2}


def rates(optimizer):
    names = ("lr", "betas", "eps", "momentum", "weight_decay")
    return [{name: group[name] for name in names if name in group} for group in optimizer.param_groups]


def brought_in(optimizer, changed, schedulers=()):
    configs = [SimpleNamespace(scheduler=scheduler) for scheduler in schedulers]
    trainer = SimpleNamespace(
        global_step=3,
        optimizers=[optimizer],
        lr_scheduler_configs=configs,
        enable_validation=False,
        check_val_every_n_epoch=1,
        val_check_batch=1,
        max_steps=-1,
        max_epochs=1,
        num_training_batches=1,
        accumulate_grad_batches=1,
    )
    RunFacts({"monitor": "val/loss"}, "", changed, {}).on_train_start(trainer, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"lr": (0.02, 0.002)},
        {"adamw_lr": (0.003, 0.0005)},
        {"adamw_betas": ([0.9, 0.95], [0.8, 0.9])},
        {"adamw_eps": (1e-8, 1e-6)},
        {"momentum": (0.95, 0.8)},
        {"weight_decay": (0.1, 0.2)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_muons_settings_are_those_of_one_that_is_made_with_them(changed):
    torch.manual_seed(0)
    model = nn.ModuleDict({"lstm": nn.LSTM(3, 4), "head": nn.Linear(4, 2)})
    named = list(model.named_parameters())
    old = {"weight_decay": 0.1} | {name: pair[0] for name, pair in changed.items()}
    optimizer = Muon(named, **old)
    wanted = rates(Muon(named, **old | {name: pair[1] for name, pair in changed.items()}))
    brought_in(optimizer, {f"optimizer.{name}": pair for name, pair in changed.items()})
    for found, group in zip(rates(optimizer), wanted, strict=True):
        assert found.keys() == group.keys() and all(found[k] == pytest.approx(group[k]) for k in found)


def test_a_schedule_of_one_of_two_rates():
    parts = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))]
    optimizer = Muon([("weight_hh", parts[0]), ("bias", parts[1])])
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    cosine = CosineAnnealingLR(Muon([("weight_hh", parts[0])]), 5, eta_min=0.01)
    brought_in(optimizer, {"optimizer.lr": (0.02, 0.002)}, [schedule])
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.0015])
    brought_in(cosine.optimizer, {"optimizer.lr": (0.02, 0.002)}, [cosine])
    assert cosine.eta_min == pytest.approx(0.001) and cosine.base_lrs == pytest.approx([0.002])


def test_what_the_optimizer_has_changed_itself_is_not_brought_in_without_a_word():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    optimizer.param_groups[0]["damping"] = 0.3
    with pytest.raises(CheckpointError, match=r"damping cannot change from 1.0 to 2.0"):
        brought_in(optimizer, {"optimizer.damping": (1.0, 2.0)})
    brought_in(optimizer, {"optimizer.watched_every": (1, 2)})  # in no group: it was made with it


@pytest.mark.parametrize(("old", "new"), [(0.0, 0.01), (0.01, 0.0)])
def test_a_weight_decay_begins_or_ends_with_a_run(old, new):
    saved = RUN | {"config": RUN["config"] | {"optimizer.weight_decay": old}}
    now = saved["config"] | {"optimizer.weight_decay": new}
    with pytest.raises(CheckpointError, match="weight_decay cannot change within a run"):
        changes("last.ckpt", saved, now, ["optimizer.weight_decay"])
    with pytest.raises(CheckpointError) as caught:
        changes("last.ckpt", saved, now, [])
    assert "resume.allow" not in caught.value.hint
    other = saved | {"config": saved["config"] | {"optimizer.weight_decay": 0.5}}
    assert changes("last.ckpt", other, other["config"] | {"optimizer.weight_decay": 0.1}, ["optimizer"])


def test_checkpoints_of_before_know_nothing_of_noise():
    now = RUN["config"] | {"callbacks.input_noise.std": 0.1, "callbacks.mixup.concentration": 0.5}
    assert changes("last.ckpt", RUN | {"format": 1}, now, []) == {}
    with pytest.raises(CheckpointError, match="input_noise"):
        changes("last.ckpt", RUN, now, [])
