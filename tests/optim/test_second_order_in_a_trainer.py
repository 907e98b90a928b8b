"""Second-order optimizers in anybody's Trainer."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.gradient_norm import GradientNorm
from lstmopt.errors import ConfigError
from lstmopt.optim.kfac import KFAC
from lstmopt.optim.natural_gradient import NaturalGradient
from lstmopt.optim.newton_cg import NewtonCG


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 3, 2, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


class Foreign(pl.LightningModule):
    """Anybody's module, with the three hooks that the docstring of `SecondOrder` asks for."""

    def __init__(self, cls):
        super().__init__()
        torch.manual_seed(0)
        self.cls, self.net, self.losses = cls, Net(), []

    def training_step(self, batch, batch_idx):
        self.batch = batch
        with self.second_order.forward():
            self.out = self.net(batch[0])
        loss = F.mse_loss(self.out, batch[1])
        self.losses.append(float(loss.detach()))
        return loss

    def backward(self, loss):
        (x, y), out = self.batch, self.out

        def sampled():
            return F.mse_loss(out, (out + torch.randn_like(out) * 0.5**0.5).detach()) * y.numel() ** 0.5

        self.second_order.backward(loss, out, sampled, lambda: F.mse_loss(self.net(x), y))

    def configure_optimizers(self):
        self.second_order = optimizer = self.cls(self.named_parameters())
        optimizer.watch(self)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.9)
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def plain_trainer(folder, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(accelerator="cpu", default_root_dir=folder, **quiet, **options)


@pytest.mark.parametrize(("cls", "accumulate"), [(NaturalGradient, 1), (NewtonCG, 1), (KFAC, 1), (KFAC, 2)])
def test_in_a_plain_trainer(cls, accumulate, tmp_path):
    torch.manual_seed(1)
    x = torch.randn(32, 6, 2)
    data = TensorDataset(x, x.cumsum(dim=1)[..., [0, 1, 0]] * 0.3)
    module = Foreign(cls)
    trainer = plain_trainer(tmp_path, max_epochs=20, accumulate_grad_batches=accumulate)
    trainer.fit(module, DataLoader(data, batch_size=8))
    assert len(module.losses) == 80 and trainer.global_step == 80 / accumulate
    assert sum(module.losses[-4:]) < 0.5 * sum(module.losses[:4])


class Broken(Foreign):
    """Draws classes; the weights of the head are NaN in one batch."""

    def training_step(self, batch, batch_idx):
        self.y = batch[1][:, -1].argmax(-1)
        self.batch = batch
        with self.second_order.forward():
            self.out = self.net(batch[0])[:, -1] * (float("nan") if len(self.losses) == 5 else 1.0)
        loss = F.cross_entropy(self.out, self.y)
        self.losses.append(float(loss.detach()))
        return loss

    def backward(self, loss):
        out, y = self.out, self.y

        def sampled():
            return F.cross_entropy(out, torch.multinomial(out.detach().softmax(-1), 1)[:, 0]) * len(y) ** 0.5

        self.second_order.backward(loss, out, sampled, None)


@pytest.mark.parametrize("policy", ["skip", "rollback", "stop"])
def test_kfac_leaves_predictions_that_are_no_numbers_to_the_guard(policy, tmp_path):
    x = torch.randn(32, 6, 2)
    module, guard = Broken(lambda params: KFAC(params, factor_every=1)), GradientNorm(policy)
    trainer = plain_trainer(tmp_path, max_epochs=3, callbacks=[guard])
    data = DataLoader(TensorDataset(x, x.cumsum(dim=1)[..., [0, 1, 0]]), batch_size=8)
    if policy == "stop":
        with pytest.raises(ConfigError, match="the loss is nan"):
            trainer.fit(module, data)
    else:
        trainer.fit(module, data)
        assert (guard.skipped, guard.rollbacks) == ((1, 0) if policy == "skip" else (0, 1))
        assert len(module.losses) == 12 and module.losses[6] == module.losses[6]
    assert all(p.isfinite().all() for p in module.parameters())
