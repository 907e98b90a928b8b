"""Mixtures of sequences, against labels and inputs that were mixed by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from foreign import Foreign, fit, loader, sgd, trainer
from hydra import compose, initialize_config_dir
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lstmopt import compat
from lstmopt.build import build
from lstmopt.callbacks.mixup import Mixup
from lstmopt.conf_dir import conf_dir
from lstmopt.data.batch import Batch
from lstmopt.errors import ConfigError

SMALL = ["logger=none", "model.hidden_size=8", "data.batch_size=8", "trainer.max_epochs=2", "trainer.accelerator=cpu"]
SHARE = 0.3


def composed(*words):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return compose("train", [*SMALL, *words])


def parts_of(folder, kind, *words):
    """A run on random sequences of unequal lengths, with a label each (classification) or one per step (tagging)."""
    rng = np.random.default_rng(0)
    x, lengths = rng.random((40, 12, 3), dtype=np.float32), rng.integers(5, 13, 40)
    y = np.arange(40) % 3 if kind == "classification" else rng.integers(0, 3, (40, 12))
    np.savez(folder / f"{kind}.npz", x=x, y=y, lengths=lengths)
    data = ["data=npz", f"data.path={folder}/{kind}.npz", f"task={kind}"]
    return build(composed(*data, "data.val_fraction=0.2", "data.test_fraction=0.2", *words), str(folder))


def batch_of(parts):
    parts.datamodule.prepare_data()
    parts.datamodule.setup("fit")
    return parts.datamodule.splits["train"].batch(torch.arange(8))


def mixed_loss(parts, batch, monkeypatch, order):
    """The callback's loss, with a given proportion and given partners."""
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self: torch.tensor(SHARE))
    monkeypatch.setattr(torch, "randperm", lambda n: order)
    mixup = Mixup()
    mixup.on_fit_start(parts.trainer, parts.module)
    loss = parts.module.training_loss(batch)
    mixup.on_fit_end(parts.trainer, parts.module)
    return loss


def gradients(module, loss):
    return torch.autograd.grad(loss, list(module.parameters()))


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_it_is_the_cross_entropy_of_mixed_labels(kind, tmp_path, monkeypatch):
    parts = parts_of(tmp_path, kind, "callbacks=none")
    batch, module = batch_of(parts), parts.module
    order = torch.tensor([3, 0, 1, 2, 7, 6, 5, 4])
    if kind == "tagging":  # one length for all, so that both losses are means over as many labels
        batch = batch._replace(lengths=torch.full((8,), batch.x.shape[1]), y=batch.y.clamp(min=0))
    loss = mixed_loss(parts, batch, monkeypatch, order)

    x = SHARE * batch.x + (1 - SHARE) * batch.x[order]
    lengths = torch.stack([batch.lengths, batch.lengths[order]]).amax(0)
    one_hot = F.one_hot(batch.y, 3).float()
    y = SHARE * one_hot + (1 - SHARE) * one_hot[order]
    steps = torch.nn.LSTM(3, 8, batch_first=True)
    steps.load_state_dict(module.model.lstm.state_dict())
    outs = []
    for row in range(8):
        out, _ = steps(x[row : row + 1, : lengths[row]])
        outs.append(out[0] if kind == "tagging" else out[0, -1])
    logits = torch.stack(outs) @ module.task.head.weight.T + module.task.head.bias
    by_hand = -(y * logits.log_softmax(-1)).sum(-1).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    head = [module.task.head.weight, module.task.head.bias]
    expected = torch.autograd.grad(by_hand, [*head, *steps.parameters()])
    found = torch.autograd.grad(loss, [*head, *module.model.lstm.parameters()])
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_each_label_counts_as_far_as_its_own_sequence_reaches(tmp_path, monkeypatch):
    parts = parts_of(tmp_path, "tagging", "callbacks=none")
    batch = batch_of(parts)
    order = torch.arange(8).roll(1)
    assert len(set(batch.lengths.tolist())) > 1
    loss = mixed_loss(parts, batch, monkeypatch, order)
    longer = torch.maximum(batch.lengths, batch.lengths[order])
    out = parts.module(batch._replace(x=SHARE * batch.x + (1 - SHARE) * batch.x[order], lengths=longer))
    total = 0.0
    for part, rows in ((SHARE, torch.arange(8)), (1 - SHARE, order)):
        own = [
            F.cross_entropy(out[i, : batch.lengths[j]], batch.y[j, : batch.lengths[j]], reduction="sum")
            for i, j in enumerate(rows)
        ]
        total += part * sum(own).item() / int(batch.lengths.sum())
    assert loss.item() == pytest.approx(total, rel=1e-5)


def test_the_squared_error_has_the_gradient_of_mixed_targets(tmp_path, monkeypatch):
    words = ["data=mackey_glass", "data.length=300", "data.input_length=16", "data.horizon=3", "callbacks=none"]
    parts = build(composed(*words), str(tmp_path))
    batch, order = batch_of(parts), torch.arange(8).roll(3)
    loss = mixed_loss(parts, batch, monkeypatch, order)
    out = parts.module(batch._replace(x=SHARE * batch.x + (1 - SHARE) * batch.x[order]))
    by_hand = F.mse_loss(out, SHARE * batch.y + (1 - SHARE) * batch.y[order])
    for one, other in zip(gradients(parts.module, loss), gradients(parts.module, by_hand), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_its_proportions_are_those_of_a_beta_distribution():
    class Counts:
        """A model whose loss is 1 with the first labels and 0 with those of the partners: the proportion itself."""

        def __init__(self):
            self.task = SimpleNamespace(loss=lambda out, batch: torch.tensor(float(batch is self.first)))
            self.first = Batch(torch.rand(4, 2, 1), torch.zeros(4))

        def __call__(self, batch):
            return batch.x

    module, mixup = Counts(), Mixup(concentration=0.4)
    torch.manual_seed(0)
    shares = [float(mixup._loss(module, module.first)) for _ in range(4000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.05)


def test_in_the_program_a_step_mixes_the_same_again_and_nothing_is_left(tmp_path):
    def trained(*words):
        parts = parts_of(tmp_path, "classification", *words)
        parts.trainer.fit(parts.module, datamodule=parts.datamodule)
        return parts.module

    def weights(module):
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    once, again, plain = trained("callbacks=[mixup]"), trained("callbacks=[mixup]"), trained("callbacks=none")
    assert torch.equal(weights(once), weights(again)) and not torch.equal(weights(once), weights(plain))
    assert "training_loss" not in vars(once)


class MixedByHand(Foreign):
    """Each step draws from a seed of its own; where `mixes`, it mixes inputs and targets itself."""

    def __init__(self, mixes=False):
        super().__init__(sgd)
        self.mixes = mixes

    def training_step(self, batch, batch_idx):
        x, y = batch
        if self.mixes:
            torch.manual_seed(batch_idx)
            share = float(torch.distributions.Beta(0.5, 0.5).sample())
            order = torch.randperm(len(x))
            x, y = share * x + (1 - share) * x[order], share * y + (1 - share) * y[order]
        return super().training_step((x, y), batch_idx)

    def on_train_batch_start(self, batch, batch_idx):
        torch.manual_seed(batch_idx)


def test_a_module_of_somebody_else_learns_what_it_learns_from_batches_mixed_by_hand(tmp_path):
    found, run = fit(tmp_path, Mixup(0.5), module=MixedByHand())
    by_hand, _ = fit(tmp_path, module=MixedByHand(mixes=True))
    plain, _ = fit(tmp_path, module=MixedByHand())
    assert "training_step" not in vars(found) and run.global_step > 4
    for one, other, unmixed in zip(found.parameters(), by_hand.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6) and not torch.equal(one, unmixed)


def test_what_cannot_be_mixed_is_told(tmp_path):
    with pytest.raises(ConfigError, match="concentration"):
        Mixup(0.0)
    triples = DataLoader(TensorDataset(torch.rand(8, 4, 1), torch.rand(8, 1), torch.rand(8)), batch_size=4)
    with pytest.raises(ConfigError, match="batches"):
        trainer(tmp_path, Mixup()).fit(Foreign(), triples, loader())
    (tmp_path / "book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    text = ["data=text", f"data.path={tmp_path}/book.txt", "data.sequence_length=10"]
    parts = build(composed(*text, "callbacks=[mixup]"), str(tmp_path))
    with pytest.raises(ConfigError, match="whole numbers"):
        parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    assert "training_loss" not in vars(parts.module)
    for words in (["memory=recompute"], ["optimizer=natural_gradient", "gradient_clip=none"]):
        cfg = composed("data=mackey_glass", "callbacks=[mixup]", *words)
        assert any("mixup mixes numbers" in problem for problem in compat.problems(cfg))
        parts = build(cfg, str(tmp_path))
        with pytest.raises(ConfigError, match="leave mixup out"):
            parts.trainer.fit(parts.module, datamodule=parts.datamodule)
