"""The baselines on the batches that the model was tested on."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lstmopt.data.batch import DataSpec
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences
from lstmopt.evaluate import baselines
from lstmopt.models.lstm import LSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.forecasting import Forecasting

X, Y = np.random.default_rng(0).normal(size=(10, 4, 2)), np.arange(10.0) ** 2


class Squares(DataModule):
    def load(self):
        part = Sequences(torch.tensor(X).float(), torch.tensor(Y).float()[:, None, None])
        return DataSpec("forecasting", 2, 1, season=0), dict.fromkeys(("train", "val", "test"), part)


@pytest.mark.parametrize(("limit", "seen"), [(2, 6), (0.5, 6), (1, 3), (1.0, 10), (None, 10)])
def test_baselines_are_scored_on_the_batches_of_the_test(limit, seen, tmp_path):
    data = Squares(3, 0)
    data.setup()
    module = LSTMModule(Forecasting(data.spec), LSTM(2, 4), torch.optim.Adam)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", limit_test_batches=limit, default_root_dir=tmp_path, **quiet)
    (found,) = trainer.test(module, datamodule=data, verbose=False)
    with torch.no_grad():
        out = module(data.splits["test"].batch(torch.arange(10)))[:, 0, 0].numpy()
    assert found["test/mse"] == pytest.approx(np.mean((out[:seen] - Y[:seen]) ** 2), rel=1e-4)
    scores = baselines(module.task, data)
    assert scores["mean"]["test/mse"] == pytest.approx(np.mean((Y.mean() - Y[:seen]) ** 2), rel=1e-5)


def test_baselines_without_a_trainer_see_everything():
    data = Squares(3, 0)
    data.setup()
    scores = baselines(Forecasting(data.spec), data)
    assert scores["mean"]["test/mse"] == pytest.approx(np.var(Y), rel=1e-5)
