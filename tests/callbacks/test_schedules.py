"""Learning-rate schedules in a plain Trainer, against loops written by hand, also after a resume."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from foreign import STEPS_PER_EPOCH, Foreign, Manual, fit, loader, sgd
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lstmopt.callbacks.cosine import Cosine
from lstmopt.callbacks.cyclic import Cyclic
from lstmopt.callbacks.exponential import Exponential
from lstmopt.callbacks.last_checkpoint import LastCheckpoint
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from lstmopt.callbacks.step import Step
from lstmopt.errors import ConfigError
from lstmopt.optim.muon import Muon


def by_hand(make_scheduler, steps, per_epoch=False, make_optimizer=None):
    """Learning rate and momentum before each step of a loop without Lightning."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = (make_optimizer or (lambda p: torch.optim.Adam(p, lr=0.01)))([parameter])
    scheduler = make_scheduler(optimizer)
    lrs, momenta = [], []
    for step in range(steps):
        group = optimizer.param_groups[0]
        lrs.append(group["lr"])
        momenta.append(group["betas"][0] if "betas" in group else group.get("momentum"))
        optimizer.step()
        if not per_epoch or (step + 1) % STEPS_PER_EPOCH == 0:
            scheduler.step()
    return lrs, momenta


SCHEDULES = {
    "one_cycle": (
        lambda: OneCycle(max_lr=0.05),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=15),
        False,
    ),
    "cosine": (lambda: Cosine(1e-4), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 15, 1e-4), False),
    "cyclic": (
        lambda: Cyclic(0.001, 0.02, 4),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.001, 0.02, 4, cycle_momentum=False),
        False,
    ),
    "step": (lambda: Step(2, 0.1), lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.1), True),
    "exponential": (lambda: Exponential(0.7), lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.7), True),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_equals_a_loop_by_hand(name, tmp_path):
    ours, theirs, per_epoch = SCHEDULES[name]
    module, run = fit(tmp_path, ours(), LearningRateMonitor(), epochs=3, logger=CSVLogger(tmp_path))
    lrs, momenta = by_hand(theirs, 15, per_epoch)
    assert module.lrs == pytest.approx(lrs, rel=1e-9)
    assert module.momenta == pytest.approx(momenta, rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop_after", [1, 2])
def test_schedule_goes_on_after_a_resume(name, stop_after, tmp_path):
    ours, _, _ = SCHEDULES[name]
    whole, _ = fit(tmp_path, ours(), epochs=3)
    first, run = fit(tmp_path, ours(), _StopAfter(stop_after), epochs=3)
    run.save_checkpoint(tmp_path / "half.ckpt")
    second, _ = fit(tmp_path, ours(), epochs=3, ckpt_path=tmp_path / "half.ckpt")
    assert first.lrs + second.lrs == pytest.approx(whole.lrs, rel=1e-9)


class _StopAfter(pl.Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.should_stop or trainer.current_epoch + 1 == self.epochs


@pytest.mark.parametrize("epochs", [2, 5])
def test_one_cycle_survives_a_resume_with_another_length(epochs, tmp_path):
    _, run = fit(tmp_path, OneCycle(max_lr=0.05), _StopAfter(1), epochs=3)
    run.save_checkpoint(tmp_path / "begun.ckpt")
    module, _ = fit(tmp_path, OneCycle(max_lr=0.05), epochs=epochs, ckpt_path=tmp_path / "begun.ckpt")
    total = epochs * STEPS_PER_EPOCH
    lrs, _ = by_hand(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=total), total)
    # the first step after the restore still has the restored rate; from then on it is the new cycle's
    assert module.lrs[1:] == pytest.approx(lrs[STEPS_PER_EPOCH + 1 :], rel=1e-9)


@pytest.mark.parametrize("epochs", [2, 5])
def test_cosine_goes_on_along_the_new_length_of_a_resumed_run(epochs, tmp_path):
    _, run = fit(tmp_path, Cosine(1e-4), epochs=1)  # at its end: the rate is the last one
    run.save_checkpoint(tmp_path / "done.ckpt")
    module, _ = fit(tmp_path, Cosine(1e-4), epochs=epochs, ckpt_path=tmp_path / "done.ckpt")
    total = epochs * STEPS_PER_EPOCH
    lrs, _ = by_hand(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, total, 1e-4), total)
    assert module.lrs[1:] == pytest.approx(lrs[STEPS_PER_EPOCH + 1 :], rel=1e-9)


def test_cyclic_takes_zero_for_a_rate(tmp_path):
    module, _ = fit(tmp_path, Cyclic(base_lr=0.0, max_lr=0.01, step_size_up=5), epochs=1)
    assert module.lrs == pytest.approx([0.0, 0.002, 0.004, 0.006, 0.008])


def test_schedule_counts_optimizer_steps_where_gradients_are_accumulated(tmp_path):
    module, _ = fit(tmp_path, OneCycle(max_lr=0.05), accumulate_grad_batches=2)  # 3 steps in 5 batches
    lrs, _ = by_hand(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=6), 6)
    assert module.lrs == pytest.approx([lrs[k] for k in (0, 0, 1, 1, 2, 3, 3, 4, 4, 5)], rel=1e-9)


def test_one_cycle_beyond_its_end_keeps_the_last_rate():
    from lstmopt.callbacks.one_cycle import _OneCycle

    optimizer = sgd([nn.Parameter(torch.zeros(1))])
    scheduler = _OneCycle(optimizer, 0.1, total_steps=4)
    for _ in range(8):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 25 / 1e4)


def test_one_cycle_without_momentum_does_not_cycle_it(tmp_path):
    fit(tmp_path, OneCycle(), module=Foreign(lambda p: torch.optim.Adagrad(p, lr=0.01)))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: Muon(p), "Muon keeps several kinds, which torch's schedules cannot cycle"),
        (lambda p: torch.optim.Adagrad(p, lr=0.01), "Adagrad has none"),
        (lambda p: torch.optim.SGD(p, lr=0.01), "SGD has none"),
        (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), None),
    ],
    ids=["muon", "adagrad", "sgd", "sgd with momentum"],
)
@pytest.mark.parametrize("schedule", [OneCycle, lambda: Cyclic(cycle_momentum=True)], ids=["one_cycle", "cyclic"])
def test_why_the_momentum_is_not_cycled_is_said(make, why, schedule, tmp_path, capsys):
    module, run = fit(tmp_path, schedule(), module=Foreign(make))
    said = [line for line in capsys.readouterr().out.splitlines() if "not cycled" in line]
    assert said == ([f"momentum is not cycled: {why}"] if why else [])
    if why:  # and it is as it was
        assert {group["momentum"] for group in run.optimizers[0].param_groups if "momentum" in group} <= {0.0, 0.95}
    else:
        assert len(set(module.momenta)) > 2


def test_schedule_over_an_endless_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="length"):
        fit(tmp_path, OneCycle(), epochs=-1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_refused_where_the_module_steps_by_itself(name, tmp_path):
    ours, _, _ = SCHEDULES[name]
    with pytest.raises(ConfigError, match="manual optimization"):
        fit(tmp_path, ours(), module=Manual())


LOSSES = [1.0, 0.9, 0.95, 0.94, 0.93, 0.92, 0.5, 0.6, 0.6, 0.6]


def plateau_by_hand():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=0.01)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1, cooldown=1)
    lrs = []
    for loss in LOSSES:
        lrs += [optimizer.param_groups[0]["lr"]] * STEPS_PER_EPOCH
        optimizer.step()
        scheduler.step(loss)
    return lrs


@pytest.mark.parametrize("kill_at", [None, 1, 3, 4, 8])
def test_plateau_equals_torch_stepped_by_hand_also_after_a_resume(kill_at, tmp_path):
    def ours():
        return ReduceLROnPlateau(factor=0.3, patience=1, cooldown=1)

    module = Foreign(val_losses=LOSSES)
    lrs = []
    checkpoint = None
    if kill_at:
        first, run = fit(tmp_path, ours(), module=copy.deepcopy(module), epochs=kill_at)
        run.save_checkpoint(tmp_path / "half.ckpt")
        checkpoint, lrs = tmp_path / "half.ckpt", first.lrs
    fit(tmp_path, ours(), module=module, epochs=len(LOSSES), ckpt_path=checkpoint)
    assert lrs + module.lrs == pytest.approx(plateau_by_hand(), rel=1e-9)
    assert module.lrs[-1] < 0.01


def test_plateau_without_its_metric_says_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match="val/nothing") as caught:
        fit(tmp_path, ReduceLROnPlateau(monitor="val/nothing"))
    assert "val/loss" in caught.value.hint


class TrainLoss(Foreign):
    """Logs a metric of training, which is known at the end of the epoch, after validation."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", torch.tensor(LOSSES[self.current_epoch]), on_step=False, on_epoch=True, batch_size=1)
        return loss


@pytest.mark.parametrize("cut", [None, 17])  # steps, within an epoch
@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}], ids=str)
def test_plateau_of_a_training_metric(options, cut, tmp_path):
    lrs, checkpoint = [], None
    for steps in [cut, -1] if cut else [-1]:
        plateau = ReduceLROnPlateau("train/loss", factor=0.3, patience=1, cooldown=1)
        last = LastCheckpoint(tmp_path / "checkpoints")
        more = options | {"epochs": len(LOSSES), "max_steps": steps, "enable_checkpointing": True}
        module, _ = fit(tmp_path, plateau, last, module=TrainLoss(), ckpt_path=checkpoint, **more)
        checkpoint, lrs = tmp_path / "checkpoints" / "last.ckpt", lrs + module.lrs
    assert lrs == pytest.approx(plateau_by_hand(), rel=1e-9)


class OwnMetric(Foreign):
    """Logs a metric in its own hook at the end of the epoch, which Lightning calls after those of the callbacks."""

    def on_train_epoch_end(self):
        self.log("train/score", LOSSES[self.current_epoch])


@pytest.mark.parametrize("make", [OwnMetric, lambda: OwnMetric(val_losses=LOSSES)], ids=["alone", "with validation"])
@pytest.mark.parametrize("kill_at", [None, 1, 3, 8])
def test_plateau_of_a_metric_that_the_module_logs_at_the_end_of_an_epoch(make, kill_at, tmp_path):
    options = {"limit_val_batches": 0} if make is OwnMetric else {}

    def ours():
        return ReduceLROnPlateau("train/score", factor=0.3, patience=1, cooldown=1)

    lrs, checkpoint = [], None
    if kill_at:
        last = LastCheckpoint(tmp_path / "checkpoints")
        first, _ = fit(tmp_path, ours(), last, module=make(), epochs=kill_at, enable_checkpointing=True, **options)
        checkpoint, lrs = tmp_path / "checkpoints" / "last.ckpt", first.lrs
    module, _ = fit(tmp_path, ours(), module=make(), epochs=len(LOSSES), ckpt_path=checkpoint, **options)
    assert lrs + module.lrs == pytest.approx(plateau_by_hand(), rel=1e-9)
    assert "on_train_epoch_end" not in vars(module)


def test_two_plateaus_of_such_a_metric(tmp_path):
    class Other(ReduceLROnPlateau):
        """With a state of its own."""

    plateaus = [cls("train/score", factor=0.3, patience=1, cooldown=1) for cls in (ReduceLROnPlateau, Other)]
    module, _ = fit(tmp_path, *plateaus, module=OwnMetric(), epochs=len(LOSSES))
    assert module.lrs == pytest.approx([rate**2 / 0.01 for rate in plateau_by_hand()], rel=1e-9)


def test_plateau_of_a_metric_that_nothing_logs_is_told(tmp_path):
    with pytest.raises(ConfigError, match="train/nothing"):
        fit(tmp_path, ReduceLROnPlateau("train/nothing"), module=OwnMetric())


def test_plateau_counts_no_validation_outside_of_a_fit(tmp_path):
    plateau = ReduceLROnPlateau()
    module, run = fit(tmp_path, plateau)
    before = plateau.state_dict()
    run.validate(module, loader(), verbose=False)
    assert plateau.state_dict() == before
