"""The lean loop does what Lightning's own does: the same calls, the same weights, the same state."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.lean_loop import LeanLoop
from lstmopt.lean_epoch_loop import LeanEpochLoop

HOOKS = [name for name in dir(pl.Callback) if name.startswith("on_") and "exception" not in name]


class Recorder(pl.Callback):
    """Writes every hook down, its arguments too where they are numbers or tensors."""

    def __init__(self):
        self.calls = []


def record(name):
    def hook(self, trainer, pl_module, *arguments, **named):
        values = [
            a.tolist() if isinstance(a, torch.Tensor) else a for a in arguments if isinstance(a, int | torch.Tensor)
        ]
        self.calls.append((name, pl_module._current_fx_name, trainer.global_step, values))

    return hook


for name in HOOKS:
    setattr(Recorder, name, record(name))


class Module(pl.LightningModule):
    def __init__(self, optimizer="adam", step_log=False, stop_at=None, plateau=False, as_dict=False):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)
        self.settings = optimizer, step_log, stop_at, plateau, as_dict
        self.calls = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = ((self.layer(x) - y) ** 2).mean()
        if self.settings[1]:
            self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return {"loss": loss, "extra": batch_idx} if self.settings[4] else loss

    def on_train_batch_start(self, batch, batch_idx):
        self.calls.append(("start", batch_idx, self._current_fx_name))
        return -1 if batch_idx == self.settings[2] else None

    def on_before_zero_grad(self, optimizer):
        self.calls.append(("zero", self.layer.weight.grad is None))

    def on_after_backward(self):
        self.calls.append(("backward", self.layer.weight.grad.tolist()))

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", ((self.layer(x) - y) ** 2).mean())

    def configure_optimizers(self):
        if self.settings[0] == "lbfgs":
            return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=3)
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        if self.settings[3]:
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def loader():
    generator = torch.Generator().manual_seed(1)
    return DataLoader(TensorDataset(*torch.randn(2, 22, 3, generator=generator)), batch_size=4)


def fit(folder, lean, module, trainer, ckpt_path=None):
    recorder = Recorder()
    best = ModelCheckpoint(folder / "checkpoints", monitor="val/loss", save_last=True, every_n_train_steps=2)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=2,
        callbacks=[recorder, best, *([LeanLoop()] if lean else [])],
        **{"max_epochs": 3} | trainer,
    )
    module = Module(**module)
    trainer.fit(module, loader(), loader(), ckpt_path=ckpt_path, weights_only=False)
    trainer.logger.save()
    return trainer, module, recorder


CASES = {
    "plain": ({}, {}),
    "logs in every step": ({"step_log": True}, {}),
    "accumulation": ({}, {"accumulate_grad_batches": 4}),
    "validation within an epoch": ({"plateau": True}, {"val_check_interval": 2}),
    "bf16": ({}, {"precision": "bf16-mixed"}),
    "a closure optimizer": ({"optimizer": "lbfgs"}, {}),
    "steps are limited": ({}, {"max_steps": 8, "max_epochs": -1}),
    "an epoch ends with -1": ({"stop_at": 3}, {}),
    "a dictionary as output": ({"as_dict": True}, {"limit_train_batches": 3}),
    "the Trainer clips": ({}, {"gradient_clip_val": 0.01}),
    "a profiler": ({}, {"profiler": "simple"}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_like_lightnings_own(case, tmp_path):
    module, trainer = CASES[case]
    runs = [fit(tmp_path / str(lean), lean, module, trainer) for lean in (False, True)]
    (stock, stock_module, stock_calls), (lean, lean_module, lean_calls) = runs
    assert isinstance(lean.fit_loop.epoch_loop, LeanEpochLoop)
    own_way = case in ("the Trainer clips", "a profiler")
    assert (lean.fit_loop.epoch_loop._lean() is None) == own_way
    assert len(lean_calls.calls) > 60
    assert lean_calls.calls == stock_calls.calls
    assert lean_module.calls == stock_module.calls
    for own, other in zip(lean_module.parameters(), stock_module.parameters(), strict=True):
        assert torch.equal(own, other)
    assert lean.callback_metrics == stock.callback_metrics
    assert lean.fit_loop.state_dict() == stock.fit_loop.state_dict()
    logged = [tmp_path / str(lean) / "metrics.csv" for lean in (True, False)]
    assert [path.is_file() for path in logged] == [case != "an epoch ends with -1"] * 2
    assert case == "an epoch ends with -1" or logged[0].read_text() == logged[1].read_text()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["plain", "accumulation", "validation within an epoch"])
def test_goes_on_from_a_checkpoint(case, tmp_path):
    module, trainer = CASES[case]
    whole, whole_module, _ = fit(tmp_path / "whole", True, module, trainer | {"max_epochs": 4})
    fit(tmp_path / "part", True, module, trainer | {"max_epochs": 2})
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    resumed, resumed_module, _ = fit(tmp_path / "resumed", True, module, trainer | {"max_epochs": 4}, last)
    assert resumed.global_step == whole.global_step
    stock, stock_module, _ = fit(tmp_path / "stock", False, module, trainer | {"max_epochs": 4}, last)
    for own, other in zip(resumed_module.parameters(), stock_module.parameters(), strict=True):
        assert torch.equal(own, other)
    assert resumed.fit_loop.state_dict() == stock.fit_loop.state_dict()


def test_a_module_with_its_own_optimizer_step_is_called(tmp_path):
    class Own(Module):
        stepped = 0

        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure):
            Own.stepped += 1
            optimizer.step(closure=optimizer_closure)

    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[LeanLoop()],
    )
    trainer.fit(Own(), loader(), loader())
    assert Own.stepped == 6
