"""Every optimizer option there is: it goes on from a saved state as if it had never stopped."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from lstmopt import compat
from lstmopt.build import build
from lstmopt.conf_dir import conf_dir
from lstmopt.optim.muon import Muon

OPTIMIZERS = sorted(file.stem for file in Path(conf_dir(), "optimizer").glob("*.yaml"))
SCHEDULES = {
    "none": [],
    "one_cycle": ["lr_scheduler=one_cycle"],
    "reduce_on_plateau": ["lr_scheduler=reduce_on_plateau", "callbacks.lr_schedule.patience=0"],
}
AVERAGES = {"asgd": ["optimizer.t0=1"]}  # within these few steps
SMALL = [
    "data=mackey_glass",
    "data.length=400",
    "data.input_length=12",
    "data.horizon=2",
    "data.batch_size=32",
    "model.hidden_size=6",
    "model.num_layers=2",
    "model.dropout=0.3",
    "callbacks=none",
    "logger=none",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=1",
]


def composed(*overrides):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", [*SMALL, *overrides])


class SaveAt(pl.Callback):
    """Save after a step in the middle of the second epoch."""

    def __init__(self, path):
        self.path, self.saved = path, False

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 0:
            trainer.save_checkpoint(self.path)
            self.saved = True


def plain(value):
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return value is None or isinstance(value, bool | int | float | str | torch.Tensor)


def same(left, right):
    """Bitwise equality of nested plain data."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


def state(trainer):
    return {
        "weights": dict(trainer.model.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "lr": [group["lr"] for group in trainer.optimizers[0].param_groups],
        "steps": trainer.global_step,
    }


def test_optimizers_are_found():
    assert len(OPTIMIZERS) >= 16


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_from_a_saved_state_equals_never_having_stopped(optimizer, schedule, tmp_path):
    overrides = [f"optimizer={optimizer}", *SCHEDULES[schedule], *AVERAGES.get(optimizer, [])]
    if compat.problems(composed(*overrides)):
        overrides.append("callbacks.lr_schedule.cycle_momentum=false")
    cfg = composed(*overrides)
    assert not compat.problems(cfg)
    whole = build(cfg, str(tmp_path))
    saver = SaveAt(tmp_path / "half.ckpt")
    whole.trainer.callbacks.append(saver)
    before = [p.clone() for p in whole.module.parameters()]
    whole.trainer.fit(whole.module, datamodule=whole.datamodule)
    assert saver.saved
    assert any(not torch.equal(a, b) for a, b in zip(before, whole.module.parameters(), strict=True))
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert plain(saved["optimizer_states"])

    resumed = build(cfg, str(tmp_path))
    resumed.trainer.fit(
        resumed.module, datamodule=resumed.datamodule, ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert state(whole.trainer)["steps"] > saved["global_step"] > 0
    assert same(state(resumed.trainer), state(whole.trainer))


def test_weight_decay_leaves_biases_alone(tmp_path):
    module = build(composed("optimizer=adamw", "optimizer.weight_decay=0.1"), str(tmp_path)).module
    decay, rest = module.configure_optimizers().param_groups
    assert decay["weight_decay"] == 0.1 and all(p.ndim >= 2 for p in decay["params"])
    assert rest["weight_decay"] == 0.0 and all(p.ndim == 1 for p in rest["params"])
    assert len(decay["params"]) + len(rest["params"]) == len(list(module.parameters()))


def test_muon_is_for_the_matrices_of_the_lstm(tmp_path):
    module = build(composed("optimizer=muon", "optimizer.weight_decay=0.1"), str(tmp_path)).module
    optimizer = module.configure_optimizers()
    names = {name: group for group in optimizer.param_groups for name in group["param_names"]}
    assert len(names) == len(list(module.parameters()))
    for name, group in names.items():
        assert group["use_muon"] == (".weight_ih_" in name or ".weight_hh_" in name), name
        assert group["weight_decay"] == (0.0 if "bias" in name else 0.1), name


def test_a_step_of_muon_is_orthogonal_and_one_of_the_rest_is_adamw():
    torch.manual_seed(0)
    lstm, head = nn.LSTM(16, 16), nn.Linear(16, 3)
    named = [*lstm.named_parameters(), *head.named_parameters()]
    before = {name: p.detach().clone() for name, p in named}
    reference = torch.optim.AdamW([head.weight.detach().clone().requires_grad_()], lr=0.003, betas=(0.9, 0.95))
    optimizer = Muon(named, lr=0.02)
    for _, p in named:
        p.grad = torch.randn_like(p)
    reference.param_groups[0]["params"][0].grad = head.weight.grad.clone()
    reference.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    reference.step()
    torch.testing.assert_close(head.weight, reference.param_groups[0]["params"][0])
    step = torch.linalg.svdvals(before["weight_hh_l0"] - lstm.weight_hh_l0.detach())
    gradient = torch.linalg.svdvals(lstm.weight_hh_l0.grad)
    assert step.max() / step.min() < 2 < gradient.max() / gradient.min()
    x = lstm.weight_hh_l0.grad.double().T  # Newton-Schulz by hand; in bfloat16 it would be a hundredth off
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    moved = (before["weight_hh_l0"] - lstm.weight_hh_l0.detach()).double()
    torch.testing.assert_close(moved / moved.norm(), x.T / x.norm(), atol=1e-5, rtol=1e-4)


def test_muon_takes_groups_of_any_kind():
    """Iterators, pairs with names, and single tensors, as torch's optimizers do."""
    lstm, head, alone = nn.LSTM(3, 4), nn.Linear(4, 2), nn.Parameter(torch.ones(3))
    named = Muon([{"params": lstm.named_parameters()}, {"params": head.named_parameters()}])
    assert {p for group in named.param_groups for p in group["params"]} == {*lstm.parameters(), *head.parameters()}
    optimizer = Muon([{"params": lstm.parameters()}, {"params": head.parameters(), "lr": 0.01}, {"params": alone}])
    expected = {*lstm.parameters(), *head.parameters(), alone}
    assert {p for group in optimizer.param_groups for p in group["params"]} == expected
    before = {p: p.detach().clone() for p in expected}
    for p in expected:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert not any(torch.equal(p.detach(), before[p]) for p in expected)


def test_adabound_closes_its_bounds_around_the_final_rate():
    """However large or small the gradients, a late step is `final_lr` times the mean gradient, as SGD's (Luo 2019)."""
    import pytorch_optimizer

    for scale in (1e-6, 1.0, 1e6):
        p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = pytorch_optimizer.AdaBound([p], lr=1e-3, final_lr=0.1, gamma=0.1, betas=(0.0, 0.999))
        rates = []
        for _ in range(3000):
            before = p.detach().clone()
            p.grad = torch.full_like(p, scale)
            optimizer.step()
            rates.append(((before - p.detach()) / scale)[0].item())
        lower = 0.1 * (1 - 1 / (0.1 * 3000 + 1))
        upper = 0.1 * (1 + 1 / (0.1 * 3000))
        assert lower * 0.999 <= rates[-1] <= upper * 1.001
        assert abs(rates[-1] - 0.1) < 0.0005
