"""Schedules that warm up, and cycles over several groups, against loops written by hand."""

import math

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, fit
from test_schedules import LOSSES, _StopAfter

from lstmopt.callbacks.cyclic import Cyclic
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.warmup_cosine import WarmupCosine
from lstmopt.callbacks.warmup_plateau import WarmupPlateau


def cosine_by_hand(total, warmup=4, peak=0.01, last=0.001):
    rates = []
    for step in range(total):
        if step < warmup:
            rates.append(peak * (step + 1) / warmup)
        else:
            done = (step - warmup) / (total - warmup)
            rates.append(last + (peak - last) * (1 + math.cos(math.pi * done)) / 2)
    return rates


def test_warmup_cosine_by_hand(tmp_path):
    module, _ = fit(tmp_path, WarmupCosine(4, eta_min=0.001), epochs=3)
    assert module.lrs == pytest.approx(cosine_by_hand(15), rel=1e-9)


@pytest.mark.parametrize("epochs", [3, 5])
def test_warmup_cosine_goes_on_along_the_length_of_the_resumed_run(epochs, tmp_path):
    first, run = fit(tmp_path, WarmupCosine(4, eta_min=0.001), _StopAfter(1), epochs=3)
    run.save_checkpoint(tmp_path / "begun.ckpt")
    second, _ = fit(tmp_path, WarmupCosine(4, eta_min=0.001), epochs=epochs, ckpt_path=tmp_path / "begun.ckpt")
    assert first.lrs == pytest.approx(cosine_by_hand(15)[:5], rel=1e-9)
    # the first step after the restore still has the restored rate
    assert second.lrs[1:] == pytest.approx(cosine_by_hand(epochs * STEPS_PER_EPOCH)[6:], rel=1e-9)


def plateau_by_hand(warmup):
    """Warm-up, then torch's schedule on the validations that come after it."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)
    rates, step = [], 0
    for loss in LOSSES:
        for _ in range(STEPS_PER_EPOCH):
            full = optimizer.param_groups[0]["lr"]
            rates.append(full * min((step + 1) / warmup, 1.0) if step < warmup else full)
            step += 1
        optimizer.step()
        if step >= warmup:
            scheduler.step(loss)
    return rates


@pytest.mark.parametrize("warmup", [3, 8])
@pytest.mark.parametrize("stop_after", [None, 1, 2, 5])
def test_warmup_plateau_by_hand_also_after_a_resume(warmup, stop_after, tmp_path):
    def ours():
        return WarmupPlateau(warmup, factor=0.3, patience=1)

    lrs, checkpoint = [], None
    if stop_after:
        first, run = fit(tmp_path, ours(), module=Foreign(val_losses=LOSSES), epochs=stop_after)
        run.save_checkpoint(tmp_path / "half.ckpt")
        lrs, checkpoint = first.lrs, tmp_path / "half.ckpt"
    module = Foreign(val_losses=LOSSES)
    fit(tmp_path, ours(), module=module, epochs=len(LOSSES), ckpt_path=checkpoint)
    assert lrs + module.lrs == pytest.approx(plateau_by_hand(warmup), rel=1e-9)
    assert module.lrs[-1] < 0.01


def two_groups(parameters):
    parameters = list(parameters)
    return torch.optim.SGD([{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:]}], lr=0.01, momentum=0.9)


@pytest.mark.parametrize("schedule", [OneCycle, lambda: Cyclic(step_size_up=3), lambda: WarmupCosine(3)])
def test_each_group_is_scheduled_relative_to_its_own_rate(schedule, tmp_path):
    class Both(Foreign):
        ratios: list = []

        def training_step(self, batch, batch_idx):
            first, second = (group["lr"] for group in self.trainer.optimizers[0].param_groups)
            self.ratios.append(first / second)
            return super().training_step(batch, batch_idx)

    module = Both(two_groups)
    Both.ratios = []
    fit(tmp_path, schedule(), module=module, epochs=3)
    assert len(set(module.lrs)) > 5
    assert module.ratios == pytest.approx([10.0] * 15)


@pytest.mark.parametrize("schedule", [OneCycle, lambda: Cyclic(cycle_momentum=True)])
@pytest.mark.parametrize("make", [lambda p: torch.optim.RMSprop(p, lr=0.01), lambda p: torch.optim.SGD(p, lr=0.01)])
def test_no_momentum_is_brought_in_where_there_is_none(schedule, make, tmp_path):
    module, _ = fit(tmp_path, schedule(), module=Foreign(make))
    assert set(module.momenta) == {0}
