"""Parts of the data that the Trainer is to take: refused before the training where it would fail."""

import pytest
import pytorch_lightning as pl
import torch

from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.data.batch import DataSpec
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences
from lstmopt.errors import ConfigError
from lstmopt.models.lstm import LSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.forecasting import Forecasting
from lstmopt.tasks.tagging import Tagging


class Numbers(DataModule):
    """Of 5 training, 4 validation and 3 test batches."""

    def load(self):
        parts = {"train": 10, "val": 8, "test": 6}
        splits = {part: Sequences(torch.zeros(n, 3, 1), torch.zeros(n, 1, 1)) for part, n in parts.items()}
        return DataSpec("forecasting", 1, 1, season=0), splits


def fit(folder, **options):
    data = Numbers(2, 0)
    data.setup()
    module = LSTMModule(Forecasting(data.spec), LSTM(1, 2), torch.optim.Adam)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"max_epochs": 1, "enable_checkpointing": False}
    trainer = pl.Trainer(accelerator="cpu", default_root_dir=folder, **quiet | options)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    return trainer


BAD = [
    ({"limit_test_batches": 0.3}, "trainer.limit_test_batches=0.3 is less than one of 3 batches"),
    ({"limit_val_batches": 0.2}, "trainer.limit_val_batches=0.2 is less than one of 4 batches"),
    ({"limit_train_batches": 0.1}, "trainer.limit_train_batches=0.1 is less than one of 5 batches"),
    ({"val_check_interval": 6}, "trainer.val_check_interval=6 is more than the 5 batches"),
    ({"val_check_interval": 3, "limit_train_batches": 2}, "more than the 2 batches"),
]


@pytest.mark.parametrize(("options", "expected"), BAD, ids=str)
def test_less_than_a_batch_is_refused_before_the_training(options, expected, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(LSTMModule, "training_step", lambda *arguments: steps.append(1))
    with pytest.raises(ConfigError) as caught:
        fit(tmp_path, **options)
    assert not steps
    assert expected in caught.value.problem and caught.value.hint.startswith("type trainer.")


GOOD = [
    {"limit_test_batches": 0.34},
    {"limit_val_batches": 0.25, "limit_train_batches": 0.2},
    {"val_check_interval": 5},
    {"val_check_interval": 6, "check_val_every_n_epoch": None},
    {"val_check_interval": 6, "limit_val_batches": 0},
    {"val_check_interval": "00:00:00:01"},
    {"fast_dev_run": True, "limit_test_batches": 0.01},
]


def test_a_short_run_without_validation_is_not_asked_about_the_test(tmp_path):
    data = Numbers(2, 0)
    trainer = pl.Trainer(accelerator="cpu", logger=False, limit_val_batches=0, limit_test_batches=0.1)
    data.trainer = trainer
    data.setup("fit")
    assert len(data.splits) == 3


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_what_lightning_takes_is_taken(options, tmp_path):
    assert fit(tmp_path, **options).global_step >= 1


class Tags(DataModule):
    """6 batches of training whose 20 steps `memory=tbptt` cuts into pieces of 5: 24 batches."""

    def load(self):
        parts = {"train": 12, "val": 4, "test": 4}
        splits = {
            part: Sequences(torch.zeros(n, 20, 1), torch.zeros(n, 20).long(), per_step=True)
            for part, n in parts.items()
        }
        return DataSpec("tagging", 1, 2), splits


@pytest.mark.parametrize("interval", [6, 7, 24, 25])
def test_of_pieces_there_are_more(interval, tmp_path):
    data = Tags(2, 0)
    data.setup()
    module = LSTMModule(Tagging(data.spec), LSTM(1, 2), torch.optim.Adam)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"accelerator": "cpu", "max_epochs": 1, "default_root_dir": tmp_path, "val_check_interval": interval}
    trainer = pl.Trainer(callbacks=[TBPTT(5)], enable_checkpointing=False, **options, **quiet)
    data.check_limits(trainer)  # nobody knows the pieces yet
    if interval <= 24:
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == 24
        return
    with pytest.raises(ConfigError, match="more than the 24 batches of an epoch"):
        trainer.fit(module, datamodule=data)


def test_counting_on_is_advised_where_the_epochs_are_enough(tmp_path):
    for epochs, advised in ((1, False), (2, True)):
        with pytest.raises(ConfigError) as caught:
            fit(tmp_path, val_check_interval=6, max_epochs=epochs)
        assert ("check_val_every_n_epoch=null" in caught.value.hint) is advised
