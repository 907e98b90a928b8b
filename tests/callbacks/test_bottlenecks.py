"""Faults that are planted in a training, and whether the summary names them, and nothing where there is none."""

import time

import pytest
import pytorch_lightning as pl
import torch
from foreign import trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.bottleneck import Bottleneck
from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping
from lstmopt.callbacks.pytorch_profile import PyTorchProfile
from lstmopt.profilers.advice import NONE, Facts, advice
from lstmopt.profilers.phases import PHASES

STEPS = 20


class Model(pl.LightningModule):
    def __init__(self, hidden_size, reads_values=False):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, hidden_size, batch_first=True), nn.Linear(hidden_size, 1)
        self.reads_values, self.seen = reads_values, []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = ((self.head(self.lstm(x)[0][:, -1]) - y) ** 2).mean()
        if self.reads_values:
            self.seen += [loss.item(), float(loss), bool(loss > 1), loss.sqrt().item()]
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), foreach=False)


class Slow(TensorDataset):
    def __getitem__(self, index):
        time.sleep(0.1 / 64)
        return super().__getitem__(index)


def batches(batch_size, steps=20, slow=False):
    x = torch.randn(STEPS * batch_size, steps, 2)
    return DataLoader((Slow if slow else TensorDataset)(x, x.mean(dim=(1, 2))[:, None]), batch_size=batch_size)


PLANTED = {
    "slow loader": lambda: (Model(16), batches(64, slow=True)),
    "tiny batch": lambda: (Model(64), batches(1, steps=40)),
    "host sync": lambda: (Model(64, reads_values=True), batches(256)),
    None: lambda: (Model(64), batches(256)),
}


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_planted_fault_is_named_first(planted, tmp_path):
    torch.manual_seed(0)
    model, loader = PLANTED[planted]()
    profiler = PyTorchProfile(wait=2, warmup=1, active=3, timed=12)
    trainer(tmp_path, profiler, GradientNormClipping(1.0), epochs=1).fit(model, loader)
    first, _, rest = (tmp_path / "profile" / "summary.txt").read_text().partition("\n")
    assert first.startswith(f"Bottleneck: {planted}.") if planted else first == NONE
    assert not any(f"Bottleneck: {other}" in rest for other in PLANTED), "one fault, one line"
    if planted == "host sync":
        assert "reads 4 values" in first
    if planted == "tiny batch":
        assert "data.batch_size" in first
    if planted == "slow loader":
        assert "loader=workers" in first and "loader=resident" in first


def test_the_same_advice_from_bottleneck(tmp_path):
    model, loader = PLANTED["host sync"]()
    trainer(tmp_path, Bottleneck(2, 1, 3, 2), epochs=1).fit(model, loader)
    for file in ("bottleneck.txt", "bottleneck.html"):
        assert "Bottleneck: host sync. Every step reads 4 values" in (tmp_path / "profile" / file).read_text()


def test_values_that_a_closure_reads_are_counted_per_evaluation(tmp_path):
    """L-BFGS reads the loss of every evaluation itself, and that is no fault of the training step."""
    for reads in (False, True):
        torch.manual_seed(0)
        model = Model(32, reads_values=reads)
        model.configure_optimizers = lambda model=model: torch.optim.LBFGS(model.parameters(), max_iter=3)
        trainer(tmp_path, PyTorchProfile(2, 1, 3, 2), epochs=1).fit(model, batches(64))
        text = (tmp_path / "profile" / "summary.txt").read_text()
        assert ("host sync. Every step reads 4 values" in text) == reads


GOOD = {"data": 0.5, "forward": 3, "backward": 6, "clip": 0.2, "step": 1, "callbacks": 0.3, "rest": 0.4}


def facts(seconds=None, **others):
    """A step of 11.4 ms that reaches half of what a matrix product does."""
    given = {"batch_size": 1, "flops": 10.2e-3 * 50e9, "matmul_flops_per_second": 100e9, "num_workers": 0}
    return Facts({k: v / 1e3 for k, v in {**GOOD, **(seconds or {})}.items()}, **given | others)


def test_rules_by_hand():
    assert set(GOOD) == set(PHASES)
    assert facts().utilisation == pytest.approx(0.5)
    assert facts({"data": 0}).share("forward") == pytest.approx(3 / 10.9)
    assert advice(facts()) == [NONE]
    assert advice(facts(flops=0)) == [NONE]
    slow = advice(facts({"data": 10.9}, num_workers=2))
    assert len(slow) == 1 and "50% of a step" in slow[0] and "loader.num_workers" in slow[0]
    own = {"step": 8.0, "clip": 3.0, "callbacks": 2.0, "data": 1.0, "forward": 0.4, "backward": 0.4}
    assert advice(facts(syncs=own)) == [NONE]
    assert advice(facts(syncs=own | {"forward": 1.0}))[0].startswith("Bottleneck: host sync")
    few = 10.2e-3 * 5e9  # a twentieth
    assert [advice(facts(flops=few, batch_size=n)) == [NONE] for n in (1, 32, 33, 256)] == [False, False, True, True]
    assert advice(facts(flops=3 * few, batch_size=32)) == [NONE] != advice(facts(flops=3 * few, batch_size=8))
    assert "callbacks" in advice(facts({"callbacks": 10}))[0]
    everything = advice(facts({"data": 20, "callbacks": 20}, flops=few, syncs={"backward": 2.0}))
    assert [line.split(".")[0].split(": ")[1] for line in everything] == [
        "slow loader",
        "host sync",
        "tiny batch",
        "callbacks",
    ]
