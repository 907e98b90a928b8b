"""NaN and infinity in loss and gradient: what each policy leaves of weights, optimizer state and files."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from foreign import NONFINITE, STEPS_PER_EPOCH, Foreign, Planted, fit, loader, same, sgd, trainer
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
from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.callbacks.warmup_cosine import WarmupCosine
from lstmopt.callbacks.warmup_plateau import WarmupPlateau
from lstmopt.errors import ConfigError

OPTIMIZERS = {
    "sgd": sgd,
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adam fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adam foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4),
}
CASES = [(name, accumulate) for name in OPTIMIZERS for accumulate in (1, 3) if (name, accumulate) != ("lbfgs", 3)]


def guard(name, policy):
    return GradientNorm(policy) if name == "lbfgs" else GradientNormClipping(nonfinite=policy)


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(finite, value))
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().all())


def whole(folder):
    """No number in the checkpoint is NaN or infinite, but for the best values that nothing has reached yet."""
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return finite(saved["state_dict"]) and finite(saved["optimizer_states"]) and finite(saved["callbacks"])


def first_of(module, step):
    """Weights and optimizer state before a step."""
    return next([weights, state] for one, weights, state in module.states if one == step)


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_stop_leaves_what_was_before_the_step(name, accumulate, kind, tmp_path):
    bad = STEPS_PER_EPOCH + 1 if accumulate == 1 else 3  # in the second epoch
    module = Planted({bad}, OPTIMIZERS[name], kind)
    run = trainer(
        tmp_path, guard(name, "stop"), LastCheckpoint(), accumulate_grad_batches=accumulate, enable_checkpointing=True
    )
    with pytest.raises(ConfigError) as caught:
        run.fit(module, loader(), loader())
    assert same([list(module.parameters()), run.optimizers[0].state_dict()["state"]], first_of(module, bad))
    assert finite(list(module.parameters())) and finite(run.optimizers[0].state_dict()) and whole(tmp_path)
    batch = 2 if accumulate == 1 else 5
    lr = {"sgd": 0.1, "lbfgs": 0.5}.get(name, 0.01)
    assert f"step {bad} (epoch 2, batch {batch}): the loss is " in caught.value.problem
    assert f"at learning rate {lr}" in caught.value.problem and "no weight was changed" in caught.value.problem
    for words in ("optimizer.lr", "nonfinite=skip", "rollback", "precision=fp32", "NaN in the data"):
        assert words in caught.value.hint
    assert len(str(caught.value).splitlines()) <= 5
    if "loss" in kind:
        assert f"the loss is {kind[:3]} " in caught.value.problem
    else:
        assert f"the gradient norm {kind[:3]}," in caught.value.problem


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_stop_within_a_step_of_lbfgs_undoes_the_step(line_search, kind, tmp_path):
    def make(parameters):
        return torch.optim.LBFGS(parameters, lr=0.5, max_iter=6, history_size=3, line_search_fn=line_search)

    module = Planted({4}, make, kind, evaluation=3)
    run = trainer(tmp_path, GradientNorm())
    with pytest.raises(ConfigError, match="step 4"):
        run.fit(module, loader(), loader())
    assert module.evaluations[4] == 3
    assert same([list(module.parameters()), run.optimizers[0].state_dict()["state"]], first_of(module, 4))


@pytest.mark.parametrize("kind", NONFINITE)
@pytest.mark.parametrize(("name", "accumulate"), CASES)
def test_skip_changes_nothing_and_goes_on(name, accumulate, kind, tmp_path):
    module, callback = Planted({1}, OPTIMIZERS[name], kind), guard(name, "skip")
    options = {"accumulate_grad_batches": accumulate, "enable_checkpointing": True}
    _, run = fit(tmp_path, callback, LastCheckpoint(), module=module, **options)
    assert callback.skipped == 1 and module.global_step == (4 if accumulate == 3 else 10)
    before, after = first_of(module, 1), first_of(module, 2)
    assert same(before, after)
    assert not same(after[0], list(module.parameters()))
    assert finite(list(module.parameters())) and finite(run.optimizers[0].state_dict()) and whole(tmp_path)


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


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_carried_state_with_nan_is_forgotten(policy, tmp_path):
    class Carried(Foreign):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return super().training_step((x * float("nan") if self.global_step == 2 else x, y), batch_idx)

    module, callback, tbptt = Carried(), GradientNorm(policy), TBPTT()
    fit(tmp_path, callback, tbptt, module=module)
    assert (callback.skipped, callback.rollbacks) == ((1, 0) if policy == "skip" else (0, 1))
    assert finite(tbptt.state_dict()) and finite(list(module.parameters()))


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


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="nonfinite=ignore"):
        GradientNorm("ignore")
