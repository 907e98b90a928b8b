"""The techniques in a plain Trainer, with a module that knows nothing of lstmopt, against loops written by hand."""

import copy
import csv
import gzip
import json
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.amp import AMP
from lstmopt.callbacks.cosine import Cosine
from lstmopt.callbacks.cyclic import Cyclic
from lstmopt.callbacks.exponential import Exponential
from lstmopt.callbacks.gradient_norm import GradientNorm
from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
from lstmopt.callbacks.gradient_value_clipping import GradientValueClipping
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.profiler import Profiler
from lstmopt.callbacks.reduce_lr_on_plateau import ReduceLROnPlateau
from lstmopt.callbacks.step import Step
from lstmopt.callbacks.throughput import Throughput
from lstmopt.errors import ConfigError

STEPS_PER_EPOCH = 5


class Foreign(pl.LightningModule):
    """Anybody's module: an LSTM that predicts the mean of its input."""

    def __init__(self, make_optimizer=None, val_losses=None):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1)
        self.make_optimizer = make_optimizer or (lambda p: torch.optim.Adam(p, lr=0.01))
        self.val_losses = val_losses
        self.lrs, self.momenta, self.dtypes, self.grads = [], [], set(), []

    def training_step(self, batch, batch_idx):
        x, y = batch
        out, _ = self.lstm(x)
        self.dtypes.add(out.dtype)
        group = self.trainer.optimizers[0].param_groups[0]
        self.lrs.append(group["lr"])
        self.momenta.append(group["betas"][0] if "betas" in group else group.get("momentum"))
        return ((self.head(out[:, -1]).float() - y) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        if batch_idx == 0:
            value = self.val_losses[self.current_epoch] if self.val_losses else 1.0
            self.log("val/loss", torch.tensor(value), batch_size=1)

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.grads.append([p.grad.clone() for p in self.parameters() if p.grad is not None])

    def configure_optimizers(self):
        return self.make_optimizer(self.parameters())


def loader():
    x = torch.randn(20, 6, 1, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.mean(dim=1)), batch_size=4)


def trainer(folder, *callbacks, epochs=2, **options):
    defaults = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 2}
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **defaults | options,
    )


def fit(folder, *callbacks, module=None, ckpt_path=None, **options):
    module = module or Foreign()
    run = trainer(folder, *callbacks, **options)
    run.fit(module, loader(), loader(), ckpt_path=ckpt_path)
    return module, run


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


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


def test_schedule_over_an_endless_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="length"):
        fit(tmp_path, OneCycle(), epochs=-1)


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


def logged_norms(run):
    with open(f"{run.logger.log_dir}/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.get("grad_norm/before")]
    return [{key: float(row[key]) for key in ("grad_norm/before", "grad_norm/after")} for row in rows]


def norm_of(gradients):
    return math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))


def test_norm_clipping_by_hand(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    limit = norm_of(free.grads[0]) / 2
    clip = GradientNormClipping(limit)
    module, run = fit(tmp_path, clip, module=Foreign(sgd), epochs=1, logger=CSVLogger(tmp_path), log_every_n_steps=1)
    for plain, clipped in zip(free.grads[0], module.grads[0], strict=True):
        torch.testing.assert_close(clipped, plain / 2, rtol=1e-4, atol=1e-7)
    assert float(clip.after) == pytest.approx(norm_of(module.grads[-1]), rel=1e-4)
    logged = logged_norms(run)
    assert len(logged) == STEPS_PER_EPOCH
    assert logged[0]["grad_norm/before"] == pytest.approx(2 * limit, rel=1e-4)
    assert logged[0]["grad_norm/after"] == pytest.approx(limit, rel=1e-4)


def test_small_gradients_are_left_alone(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    module, _ = fit(tmp_path, GradientNormClipping(1e6), module=Foreign(sgd), epochs=1)
    for plain, clipped in zip(free.grads[-1], module.grads[-1], strict=True):
        assert torch.equal(plain, clipped)


def test_value_clipping_by_hand(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    module, _ = fit(tmp_path, GradientValueClipping(0.01), module=Foreign(sgd), epochs=1)
    for plain, clipped in zip(free.grads[0], module.grads[0], strict=True):
        assert torch.equal(clipped, plain.clamp(-0.01, 0.01))


def test_norm_is_only_watched(tmp_path):
    free, _ = fit(tmp_path, module=Foreign(sgd), epochs=1)
    module, run = fit(tmp_path, GradientNorm(), module=Foreign(sgd), epochs=1, logger=CSVLogger(tmp_path))
    assert torch.equal(free.grads[-1][0], module.grads[-1][0])
    (logged,) = logged_norms(run)
    assert logged["grad_norm/before"] == logged["grad_norm/after"] == pytest.approx(norm_of(free.grads[0]), rel=1e-5)


@pytest.mark.parametrize("make", [lambda: GradientNormClipping(0), lambda: GradientValueClipping(-1), lambda: AMP("8")])
def test_bad_arguments_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_clipping_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="twice"):
        fit(tmp_path, GradientNormClipping(), gradient_clip_val=1.0)


def test_amp_computes_in_bfloat16_and_keeps_float32_weights(tmp_path):
    module, run = fit(tmp_path, AMP("bf16-mixed"))
    assert module.dtypes == {torch.bfloat16}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert run.precision == "bf16-mixed"


def test_fp16_on_a_cpu_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="GPU"):
        fit(tmp_path, AMP("16-mixed"))


@pytest.mark.parametrize("kind", ["simple", "pytorch"])
def test_profile_is_written(kind, tmp_path):
    fit(tmp_path, Profiler(kind, wait=1, warmup=1, active=2), logger=TensorBoardLogger(tmp_path))
    summary = (tmp_path / "profile" / "summary.txt").read_text()
    if kind == "simple":
        assert "run_training_batch" in summary
        return
    assert all(phase in summary for phase in ("data", "forward", "backward", "optimizer"))
    assert "mkldnn_rnn_layer" in summary or "lstm" in summary
    with gzip.open(tmp_path / "profile" / "trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert sum(event.get("name", "").startswith("ProfilerStep") for event in events) >= 2


def test_profile_of_a_run_shorter_than_its_schedule(tmp_path):
    fit(tmp_path, Profiler("pytorch", wait=100))
    assert "recording begins after 102" in (tmp_path / "profile" / "summary.txt").read_text()


def test_throughput_counts_samples(tmp_path):
    speed = Throughput()
    fit(tmp_path, speed, epochs=3)
    assert speed._samples == 60
    assert speed.samples_per_second == pytest.approx(60 / speed._seconds)
    assert speed.seconds_to_first_step > 0


FIVE = {
    "one_cycle": lambda: OneCycle(max_lr=0.02),
    "reduce_lr_on_plateau": ReduceLROnPlateau,
    "gradient_norm_clipping": lambda: GradientNormClipping(1.0),
    "amp": lambda: AMP("bf16-mixed"),
    "profiler": lambda: Profiler("pytorch"),
}


@pytest.mark.parametrize(
    "names",
    [
        *([name] for name in FIVE),
        [n for n in FIVE if n != "reduce_lr_on_plateau"],
        [n for n in FIVE if n != "one_cycle"],
    ],
    ids="+".join,
)
def test_with_a_module_that_knows_nothing_of_lstmopt(names, tmp_path):
    module, _ = fit(tmp_path, *(FIVE[name]() for name in names), epochs=3, logger=CSVLogger(tmp_path))
    fresh = Foreign()
    assert all(p.isfinite().all() for p in module.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(module.parameters(), fresh.parameters(), strict=True))
