"""Going back to the start of the epoch with half the rate, against a loop written by hand."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from foreign import (
    CASES,
    NONFINITE,
    OPTIMIZERS,
    STEPS_PER_EPOCH,
    Foreign,
    Planted,
    finite,
    fit,
    guard,
    loader,
    same,
    trainer,
    whole,
)
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from lstmopt.callbacks.adaptive_gradient_clipping import AdaptiveGradientClipping
from lstmopt.callbacks.amp import AMP
from lstmopt.callbacks.cosine import Cosine
from lstmopt.callbacks.cyclic import Cyclic
from lstmopt.callbacks.exponential import Exponential
from lstmopt.callbacks.gradient_norm import MOST_ROLLBACKS, GradientNorm
from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
from lstmopt.callbacks.last_checkpoint import LastCheckpoint
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from lstmopt.callbacks.schedule_free import ScheduleFree
from lstmopt.callbacks.step import Step
from lstmopt.callbacks.warmup_cosine import WarmupCosine
from lstmopt.callbacks.warmup_plateau import WarmupPlateau
from lstmopt.errors import ConfigError


class Normed(Planted):
    """With buffers that every batch moves."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))


def by_hand(bad, make, kind, accumulate, clip, epochs=2):
    """The same training as a plain loop with deep copies; what is left at its end."""
    module = Normed(bad, make, kind)
    optimizer, batches, step, rate = make(module.parameters()), list(loader()), 0, 1.0
    lr = optimizer.param_groups[0]["lr"]
    for _ in range(epochs):
        kept = copy.deepcopy([module.state_dict(), optimizer.state_dict()])
        for start in range(0, len(batches), accumulate):
            ill = []

            def closure(start=start, step=step, ill=ill, optimizer=optimizer):
                optimizer.zero_grad()
                for number, (x, y) in enumerate(batches[start : start + accumulate]):
                    loss = ((module.head(module.lstm(x)[0][:, -1]) - y) ** 2).mean()
                    if step in bad and number == 0 and not ill:
                        loss = NONFINITE[kind](loss, module.lstm.weight_hh_l0[0, 0])
                        ill.append(step)
                    (loss / accumulate).backward()
                if not ill:
                    if clip:
                        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                    return loss
                optimizer.zero_grad()
                return loss

            optimizer.step(closure)
            if ill:
                rate /= 2
                module.load_state_dict(kept[0])
                optimizer = make(module.parameters())
                optimizer.load_state_dict(copy.deepcopy(kept[1]))
                optimizer.param_groups[0]["lr"] = lr * rate
            step += 1
    return module, optimizer


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_rollback_is_the_loop_by_hand(name, accumulate, kind, tmp_path, capsys):
    bad = {2, 3} if accumulate == 3 else {1, 7, 9}  # twice in one epoch too
    module, callback = Normed(bad, OPTIMIZERS[name], kind), guard(name, "rollback")
    options = {"accumulate_grad_batches": accumulate, "logger": CSVLogger(tmp_path)}
    _, run = fit(tmp_path, callback, LastCheckpoint(), module=module, enable_checkpointing=True, **options)
    hand, optimizer = by_hand(bad, OPTIMIZERS[name], kind, accumulate, clip=name != "lbfgs")
    assert same(dict(module.state_dict()), dict(hand.state_dict()))
    assert same(run.optimizers[0].state_dict()["state"], optimizer.state_dict()["state"])
    assert run.optimizers[0].param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert callback.rollbacks == len(bad) and whole(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rollback ")]
    assert [line[:13] for line in lines] == [f"rollback {k + 1} of" for k in range(len(bad))]
    run.loggers[0].save()
    assert "grad_norm/rollbacks" in (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()


class Starts(pl.Callback):
    """Weights, optimizer state and rate at the start of each epoch and after each batch."""

    def __init__(self):
        self.epochs, self.batches = [], []

    def now(self, trainer, module):
        optimizer = trainer.optimizers[0]
        state = copy.deepcopy([dict(module.state_dict()), optimizer.state_dict()["state"]])
        return state, optimizer.param_groups[0]["lr"]

    def on_train_epoch_start(self, trainer, module):
        self.epochs.append(self.now(trainer, module))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(self.now(trainer, module))


def free(parameters):
    from pytorch_optimizer import ScheduleFreeAdamW

    return ScheduleFreeAdamW([*parameters], lr=0.01)


@pytest.mark.parametrize("extra", ["bf16", "schedule free", "strong wolfe", "adaptive", "last batch"])
def test_rollback_is_the_start_of_the_epoch(extra, tmp_path):
    def wolfe(parameters):
        return torch.optim.LBFGS(parameters, max_iter=5, line_search_fn="strong_wolfe")

    bad = 9 if extra == "last batch" else 7
    module = Normed({bad}, {"schedule free": free, "strong wolfe": wolfe}.get(extra))
    module.evaluation = 2 if extra == "strong wolfe" else 1
    starts = Starts()
    callbacks = {"bf16": [AMP("bf16-mixed")], "schedule free": [ScheduleFree()]}.get(extra, [])
    callback = AdaptiveGradientClipping(nonfinite="rollback") if extra == "adaptive" else GradientNorm("rollback")
    fit(tmp_path, starts, callback, *callbacks, module=module, epochs=3)  # `starts` looks before ScheduleFree does
    assert callback.rollbacks == 1 and finite(list(module.parameters()))
    (start, rate), (after, half) = starts.epochs[1], starts.batches[bad + 1]
    assert same(start, after) and half == rate / 2
    assert not same(starts.batches[bad][0], start)
    assert not same(starts.epochs[1][0], [dict(module.state_dict()), {}])


def test_after_too_many_rollbacks_the_run_ends(tmp_path, capsys):
    module, callback = Planted(set(range(3, 99))), GradientNormClipping(nonfinite="rollback")
    run = trainer(tmp_path, callback, epochs=9)
    with pytest.raises(ConfigError, match=f"after {MOST_ROLLBACKS} rollbacks") as caught:
        run.fit(module, loader(), loader())
    assert f"step {3 + MOST_ROLLBACKS}" in caught.value.problem
    assert capsys.readouterr().out.count("rollback ") == MOST_ROLLBACKS
    assert run.optimizers[0].param_groups[0]["lr"] == 0.01 / 2**MOST_ROLLBACKS
    assert finite(list(module.parameters()))


@pytest.mark.parametrize("save_at", [6, 8])
def test_a_resumed_run_goes_back_to_the_same_state(save_at, tmp_path):
    """Saved within the second epoch, before and after its rollback in step 7; broken right after the resume."""

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == save_at:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    starts = Starts()
    fit(tmp_path, starts, GradientNorm("rollback"), Save(), module=Planted({7}))
    resumed, callback = Starts(), GradientNorm("rollback")
    fit(tmp_path, resumed, callback, module=Planted({save_at}), ckpt_path=tmp_path / "saved.ckpt")
    (start, rate), (after, now) = starts.epochs[1], resumed.batches[1]
    assert same(start, after)
    assert now == rate / 2**callback.rollbacks and callback.rollbacks == (1 if save_at == 6 else 2)


def test_a_fit_that_begins_within_an_epoch_goes_back_to_its_begin(tmp_path):
    """The checkpoint is of a run with another policy."""

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == 7:
                trainer.save_checkpoint(tmp_path / "saved.ckpt")

    fit(tmp_path, GradientNorm("skip"), Save())
    starts = Starts()
    fit(tmp_path, starts, GradientNorm("rollback"), module=Planted({8}), ckpt_path=tmp_path / "saved.ckpt")
    assert same(starts.batches[0][0], starts.batches[2][0]) and starts.batches[2][1] == 0.005


SCHEDULES = {
    "one_cycle": lambda: OneCycle(),
    "cosine": lambda: Cosine(eta_min=0.002),
    "cyclic": lambda: Cyclic(step_size_up=3),
    "exponential": lambda: Exponential(0.7),
    "step": lambda: Step(1, 0.3),
    "warmup_cosine": lambda: WarmupCosine(4, eta_min=0.001),
    "plateau": lambda: ReduceLROnPlateau(factor=0.3, patience=0),
    "warmup_plateau": lambda: WarmupPlateau(8, factor=0.3, patience=0),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("bad", [2, 6])
@pytest.mark.parametrize("first", [True, False])
def test_every_later_rate_of_a_schedule_is_half(name, bad, first, tmp_path):
    losses = [1.0, 2.0, 3.0, 4.0]
    plain = Foreign(val_losses=losses)
    fit(tmp_path, SCHEDULES[name](), module=plain, epochs=4)
    module = Planted({bad})
    module.val_losses = losses
    callbacks = [GradientNorm("rollback"), SCHEDULES[name]()]
    fit(tmp_path, *(callbacks if first else callbacks[::-1]), module=module, epochs=4)
    expected = [rate / 2 if step > bad else rate for step, rate in enumerate(plain.lrs)]
    assert module.lrs == pytest.approx(expected, rel=1e-9)


def test_no_state_is_kept_that_holds_nan(tmp_path):
    """The last step of the first epoch makes a weight infinite, by a finite gradient: the start of the fit is kept."""

    class Overflows(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == STEPS_PER_EPOCH:
                module.head.bias.data.fill_(float("inf"))

    starts, callback = Starts(), GradientNorm("rollback")
    module, _ = fit(tmp_path, starts, Overflows(), callback)
    assert callback.rollbacks == 1 and same(starts.epochs[0][0], starts.batches[STEPS_PER_EPOCH + 1][0])
    assert finite(list(module.parameters()))
