"""Averaged SGD in anybody's Trainer, against a loop written by hand; also after a resume, and where a fit breaks."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.schedule_free import ScheduleFree
from lstmopt.optim.asgd import ASGD

LR, LAMBD, ALPHA, T0, EPOCHS = 0.2, 0.01, 0.75, 1, 3


class Foreign(pl.LightningModule):
    """Anybody's module; keeps its weights at every training step and validation."""

    def __init__(self, breaks=False):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 1)
        self.breaks, self.trained, self.validated = breaks, [], []

    def now(self):
        return [p.detach().clone() for p in self.parameters()]

    def loss(self, batch):
        return (self.head(self.lstm(batch[0])[0][:, -1]) - batch[1]).square().mean()

    def training_step(self, batch, batch_idx):
        self.trained.append(self.now())
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.validated.append(self.now())
        if self.breaks and self.trained:
            raise RuntimeError("a bad day")

    def configure_optimizers(self):
        return ASGD(self.parameters(), lr=LR, lambd=LAMBD, alpha=ALPHA, t0=T0)


class SaveAt(pl.Callback):
    """Saves at the end of the first epoch; tests/optim/test_optimizers.py does so within one."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def loader():
    x = torch.randn(16, 5, 1, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x.mean(dim=1)), batch_size=4)


def fit(folder, *callbacks, module=None, checkpoint=None):
    module = module or Foreign()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader(), DataLoader([0]), ckpt_path=checkpoint)
    return module, trainer


def by_hand():
    """The weights before each step, and the average after each epoch: of all that came from step `T0` on."""
    module, points, averages, step = Foreign(), [], [], 0
    average, rate, part = module.now(), LR, 1.0
    for _ in range(EPOCHS):
        for batch in loader():
            points.append(module.now())
            module.zero_grad()
            module.loss(batch).backward()
            step += 1
            with torch.no_grad():
                for p, mean in zip(module.parameters(), average, strict=True):
                    p.copy_((1 - LAMBD * rate) * p - rate * p.grad)
                    mean.copy_((1 - part) * mean + part * p)
            rate, part = LR / (1 + LAMBD * LR * step) ** ALPHA, 1 / max(1, step - T0)
        averages.append([mean.clone() for mean in average])
    return points, averages


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_the_average_is_evaluated_and_the_weights_are_trained(tmp_path):
    module, _ = fit(tmp_path, ScheduleFree())
    points, averages = by_hand()
    torch.testing.assert_close(module.trained, points, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module.validated, averages, rtol=1e-5, atol=1e-6)
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(averages[-1], points[-1], strict=True))
    torch.testing.assert_close(module.now(), averages[-1], rtol=1e-5, atol=1e-6)


def test_it_trains_as_torchs_own(tmp_path):
    """To the bit: putting the average in and out changes nothing."""
    module, _ = fit(tmp_path, ScheduleFree())
    plain, _ = fit(tmp_path)
    assert same(sum(module.trained, []), sum(plain.trained, []))


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    whole, trainer = fit(tmp_path, ScheduleFree(), SaveAt(tmp_path / "first.ckpt"))
    saved = torch.load(tmp_path / "first.ckpt", weights_only=True)
    assert same(saved["state_dict"].values(), whole.validated[0])
    resumed, again = fit(tmp_path, ScheduleFree(), checkpoint=tmp_path / "first.ckpt")
    assert same(sum(resumed.trained, []), sum(whole.trained[4:], []))
    assert same(sum(resumed.validated, []), sum(whole.validated[1:], []))
    assert same(resumed.now(), whole.now())
    left, right = (run.optimizers[0].state_dict() for run in (trainer, again))
    assert left["param_groups"] == right["param_groups"]
    assert all(same(left["state"][k].values(), right["state"][k].values()) for k in left["state"])


def test_a_fit_that_breaks_leaves_the_weights_that_are_trained(tmp_path):
    module = Foreign(breaks=True)
    with pytest.raises(RuntimeError, match="a bad day"):
        fit(tmp_path, ScheduleFree(), module=module)
    whole, _ = fit(tmp_path)
    assert same(module.now(), whole.trained[4]) and not same(module.now(), module.validated[-1])


def test_frozen_parameters_are_left_alone():
    weight, frozen = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = ASGD([weight, frozen], t0=0)
    optimizer.eval()  # before the first step there is no average
    optimizer.train()
    weight.grad = torch.ones(2)
    optimizer.step()
    optimizer.eval()
    assert torch.equal(frozen, torch.ones(2))
