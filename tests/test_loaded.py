"""Data of the user's own that draw from the common generators are those of the run's seed."""

import numpy as np
import torch
from omegaconf import OmegaConf

from lstmopt.build import loaded
from lstmopt.data.batch import DataSpec
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences


class Drawn(DataModule):
    def load(self):
        x, y = torch.randn(6, 3, 1), torch.from_numpy(np.random.rand(6, 1, 1).astype(np.float32))
        return DataSpec("forecasting", 1, 1), {part: Sequences(x, y) for part in ("train", "val", "test")}


def drawn(seed):
    data = {"_target_": f"{__name__}.Drawn", "batch_size": 2, "seed": seed}
    loader = {"_target_": "lstmopt.loaders.resident.Resident"}
    split = loaded(OmegaConf.create({"seed": seed, "data": data, "loader": loader})).splits["train"]
    return torch.cat([split.x.flatten(), split.y.flatten()])


def test_the_seed_comes_first():
    first = drawn(3)
    torch.randn(5), np.random.rand(5)
    assert torch.equal(drawn(3), first) and not torch.equal(drawn(4), first)
