"""Memory options against loops written by hand, and resumed in the middle of a carried state."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from foreign import Foreign, fit, loader, sgd
from hydra import compose, initialize_config_dir
from torch import nn
from torch.utils.data import DataLoader

from lstmopt.build import build
from lstmopt.callbacks.gradient_accumulation import GradientAccumulation
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.recompute import Recompute, loss_in_chunks, lstm_in_chunks
from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.conf_dir import conf_dir
from lstmopt.data.chunks import Chunks
from lstmopt.data.splits import Sequences, Text
from lstmopt.errors import ConfigError
from lstmopt.models.padded_lstm import PaddedLSTM


def test_accumulated_steps_are_those_of_the_large_batch(tmp_path):
    module, _ = fit(tmp_path, GradientAccumulation(5), module=Foreign(sgd), epochs=3)
    by_hand = Foreign(sgd)
    optimizer = sgd(by_hand.parameters())
    x = torch.cat([x for x, _ in loader()])
    for _ in range(3):
        optimizer.zero_grad()
        out, _ = by_hand.lstm(x)
        ((by_hand.head(out[:, -1]) - x.mean(dim=1)) ** 2).mean().backward()
        optimizer.step()
    torch.testing.assert_close(list(module.parameters()), list(by_hand.parameters()))


def test_a_schedule_over_the_run_counts_accumulated_steps(tmp_path):
    module, run = fit(tmp_path, GradientAccumulation(2), OneCycle(max_lr=0.1), epochs=4)
    assert run.global_step == 12  # 5 batches, 3 steps
    assert module.lrs[-1] == pytest.approx(0.1 / 25 / 1e4)


def test_accumulating_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="accumulates 2"):
        fit(tmp_path, GradientAccumulation(4), accumulate_grad_batches=2)


TEXT = Text(torch.arange(1001) % 7, 10)


@pytest.mark.parametrize("random_length", [False, True])
@pytest.mark.parametrize("epoch", [0, 3])
def test_every_token_of_a_text_is_read_once_and_in_order(random_length, epoch):
    chunks = Chunks(TEXT, 8, 13, random_length)
    indices = chunks.indices(8, True, 5)
    indices.set_epoch(epoch)
    batches = [chunks.batch(chunk) for chunk in indices]
    assert len(batches) == len(indices) and [b.starts for b in batches] == [True] + [False] * (len(batches) - 1)
    x, y = torch.cat([b.x for b in batches], dim=1), torch.cat([b.y for b in batches], dim=1)
    stream = torch.arange(1001) % 7
    assert torch.equal(x.flatten(), stream[:1000]) and torch.equal(y.flatten(), stream[1:1001])
    assert random_length == (len({b.x.shape[1] for b in batches[:-1]}) > 1)


def ragged(count=10):
    lengths = torch.tensor([3, 9, 17, 5, 20, 11, 2, 8, 14, 6])[:count]
    x = torch.arange(count * 20).view(count, 20, 1).float()
    return Sequences(x, x[..., 0].long(), lengths, per_step=True)


def test_every_step_of_every_sequence_is_read_once_in_a_new_order_each_epoch():
    chunks, part = Chunks(ragged(), 4, 6, False), ragged()
    indices = chunks.indices(4, True, 0)
    orders = []
    for epoch in range(4):
        indices.set_epoch(epoch)
        seen, first = [], []
        for batch in map(chunks.batch, indices):
            valid = torch.arange(batch.x.shape[1]) < batch.lengths[:, None]
            seen += batch.y[valid].tolist()
            first.append(batch.y[0, 0].item())
        expected = [step for k, length in enumerate(part.lengths.tolist()) for step in range(20 * k, 20 * k + length)]
        assert sorted(seen) == expected
        orders.append(tuple(first))
    assert len(set(orders)) > 1


class Labelled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm, self.head = nn.Embedding(7, 5), nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 7)

    def loss(self, x, y, state=None):
        out, state = self.lstm(self.embedding(x), state)
        return nn.functional.cross_entropy(self.head(out).flatten(0, 1), y.flatten()), state


class ForeignText(pl.LightningModule):
    """Anybody's language model; it knows nothing of states."""

    def __init__(self):
        super().__init__()
        self.model = Labelled()

    def training_step(self, batch, batch_idx):
        return self.model.loss(*batch)[0]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def pieces(step=5):
    stream = torch.randint(0, 7, (4, 41), generator=torch.Generator().manual_seed(0))
    return [(stream[:, a : a + step], stream[:, a + 1 : a + step + 1]) for a in range(0, 40, step)]


def by_hand(epochs, carried):
    model = Labelled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(epochs):
        state = None
        for x, y in pieces():
            optimizer.zero_grad()
            loss, state = model.loss(x, y, state if carried else None)
            loss.backward()
            state = tuple(s.detach() for s in state)
            optimizer.step()
    return list(model.parameters())


def plain_trainer(folder, *callbacks, epochs):
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def test_carried_state_by_hand_in_a_foreign_module(tmp_path):
    module = ForeignText()
    plain_trainer(tmp_path, TBPTT(), epochs=3).fit(module, DataLoader(pieces(), batch_size=None))
    torch.testing.assert_close(list(module.model.parameters()), by_hand(3, carried=True))
    reset = by_hand(3, carried=False)
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(module.model.parameters(), reset, strict=True))


@pytest.fixture
def text(tmp_path):
    words = np.random.default_rng(0).choice(list("abcdefg "), 1200)
    (tmp_path / "book.txt").write_text("".join(words))
    return ["data=text", f"data.path={tmp_path}/book.txt", "data.sequence_length=12", "data.batch_size=4"]


@pytest.fixture
def music(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((30, 40, 3), dtype=np.float32)
    np.savez(tmp_path / "tags.npz", x=x, y=rng.integers(0, 4, (30, 40)), lengths=rng.integers(3, 41, 30))
    return ["data=npz", f"data.path={tmp_path}/tags.npz", "task=tagging", "data.batch_size=4"]


def parts(folder, *overrides):
    small = ["callbacks=none", "logger=none", "trainer.accelerator=cpu", "model.hidden_size=6", "trainer.max_epochs=3"]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        return build(compose("train", [*small, *overrides]), str(folder))


class SaveAt(pl.Callback):
    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("data", ["text", "music"])
@pytest.mark.parametrize("extra", [[], ["callbacks.memory.random_length=true", "loader=workers"]], ids=["", "random"])
@pytest.mark.parametrize("model", ["lstm", "awd_lstm", "zoneout_lstm"])
def test_tbptt_goes_on_with_its_state_as_if_it_had_never_stopped(data, extra, model, tmp_path, request):
    overrides = [*request.getfixturevalue(data), "memory=tbptt", "callbacks.memory.length=7", f"model={model}", *extra]
    whole = parts(tmp_path, *overrides)
    whole.trainer.callbacks.append(SaveAt(tmp_path / "half.ckpt", 4))
    whole.trainer.fit(whole.module, datamodule=whole.datamodule)
    results = {}
    for kept in (True, False):
        saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
        (states,) = [value["states"] for key, value in saved["callbacks"].items() if "states" in value]
        assert states[0] is not None
        if not kept:
            states[0] = None
        torch.save(saved, tmp_path / "resume.ckpt")
        resumed = parts(tmp_path, *overrides)
        resumed.trainer.fit(resumed.module, datamodule=resumed.datamodule, ckpt_path=tmp_path / "resume.ckpt")
        results[kept] = resumed.module.state_dict()
    expected = whole.module.state_dict()
    assert all(torch.equal(results[True][name], expected[name]) for name in expected)
    assert any(not torch.equal(results[False][name], expected[name]) for name in expected)


def test_learning_rate_of_a_random_piece_is_scaled_for_its_step_only(text, tmp_path):
    run = parts(tmp_path, *text, "memory=tbptt", "callbacks.memory.random_length=true", "lr_scheduler=exponential")
    during, after, lengths = [], [], []

    class Watch(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            (optimizer,) = trainer.optimizers
            optimizer.register_step_pre_hook(lambda o, *_: during.append(o.param_groups[0]["lr"]))

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            after.append(trainer.optimizers[0].param_groups[0]["lr"])
            lengths.append(batch.x.shape[1])

    run.trainer.callbacks.append(Watch())
    run.trainer.fit(run.module, datamodule=run.datamodule)
    assert len(set(lengths)) > 3
    batches = len(after) // 3
    assert after == pytest.approx([0.003 * 0.95 ** (k // batches) for k in range(len(after))], rel=1e-12)
    assert during == pytest.approx([lr * n / 12 for lr, n in zip(after, lengths, strict=True)])


@pytest.mark.parametrize("task", ["text", "music", "series", "classes"])
@pytest.mark.parametrize("chunk", [5, 64])
def test_recomputed_gradients_are_the_plain_ones(task, chunk, tmp_path, request):
    if task == "series":
        overrides = ["data=mackey_glass", "data.length=300", "data.input_length=23", "data.horizon=3"]
    elif task == "classes":
        rng = np.random.default_rng(0)
        x = rng.random((30, 40, 3), dtype=np.float32)
        np.savez(tmp_path / "c.npz", x=x, y=np.arange(30) % 3, lengths=rng.integers(1, 41, 30))
        overrides = ["data=npz", f"data.path={tmp_path}/c.npz", "task=classification", "data.batch_size=8"]
    else:
        overrides = request.getfixturevalue(task)
    module = parts(tmp_path, *overrides, "model.num_layers=2").module
    datamodule = parts(tmp_path, *overrides, "model.num_layers=2").datamodule
    batch = next(iter(datamodule.train_dataloader()))
    plain, recomputed = copy.deepcopy(module), module
    loss = plain.training_loss(batch)
    loss.backward()
    again = loss_in_chunks(recomputed, chunk, batch)
    again.backward()
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-7)
    expected, found = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (plain, recomputed))
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    assert all(p.grad.abs().max() > 0 for p in recomputed.parameters())


def test_recompute_in_a_foreign_module_changes_no_number(tmp_path):
    plain, _ = fit(tmp_path, module=Foreign(sgd))
    module, _ = fit(tmp_path, Recompute(2), module=Foreign(sgd))
    torch.testing.assert_close(list(module.parameters()), list(plain.parameters()), rtol=1e-6, atol=1e-7)
    assert "forward" not in vars(module.lstm)


def test_dropout_is_the_same_when_it_is_computed_again(text, tmp_path):
    """The gradient agrees with finite differences of the same random numbers."""
    module = parts(tmp_path, *text, "model.num_layers=2", "model.dropout=0.5").module.double()
    batch = next(iter(parts(tmp_path, *text).datamodule.train_dataloader()))

    def loss():
        torch.manual_seed(3)
        return loss_in_chunks(module, 5, batch)

    loss().backward()
    weight = module.model.lstm.weight_hh_l1
    with torch.no_grad():
        weight[0, 0] += 1e-5
        above = loss()
        weight[0, 0] -= 2e-5
        below = loss()
    assert weight.grad[0, 0].item() == pytest.approx(((above - below) / 2e-5).item(), rel=1e-4)


def test_a_bidirectional_lstm_is_refused(tmp_path):
    class Both(Foreign):
        def __init__(self):
            super().__init__()
            self.other = nn.LSTM(1, 2, bidirectional=True)

    for callback in (TBPTT(), Recompute()):
        with pytest.raises(ConfigError, match="from"):
            fit(tmp_path, callback, module=Both())


@pytest.mark.parametrize("batch_first", [False, True])
def test_chunks_of_padded_sequences_are_the_whole(batch_first):
    lstm, x = PaddedLSTM(3, 4, 2, batch_first=batch_first), torch.randn(9, 9, 3)
    lengths = torch.tensor([9, 1, 0, 4, 5, 8, 2, 9, 3])
    whole, state = lstm(x, None, lengths)
    out, after = lstm_in_chunks(lstm, lstm.forward, 4, x, None, lengths)
    torch.testing.assert_close((out, after), (whole, state))
