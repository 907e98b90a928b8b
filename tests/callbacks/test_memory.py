"""Accumulation and carried states against loops written by hand, and resumed in the middle of a carried state."""

import pytest
import pytorch_lightning as pl
import torch
from built import DATA, parts, text
from foreign import Foreign, Manual, fit, loader, sgd
from torch import nn
from torch.utils.data import DataLoader

from lstmopt.callbacks.gradient_accumulation import GradientAccumulation
from lstmopt.callbacks.one_cycle import OneCycle
from lstmopt.callbacks.recompute import Recompute
from lstmopt.callbacks.tbptt import TBPTT
from lstmopt.data.chunks import Chunks
from lstmopt.data.splits import Sequences, Text
from lstmopt.errors import ConfigError


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


def test_accumulating_is_refused_where_the_module_steps_by_itself(tmp_path):
    with pytest.raises(ConfigError, match="manual optimization"):
        fit(tmp_path, GradientAccumulation(2), module=Manual())


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
    by_keyword = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm, self.head = nn.Embedding(7, 5), nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 7)

    def loss(self, x, y, state=None):
        x = self.embedding(x)
        out, state = self.lstm(input=x, hx=state) if self.by_keyword else self.lstm(x, state)
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


@pytest.mark.parametrize("by_keyword", [False, True])
def test_carried_state_by_hand_in_a_foreign_module(by_keyword, tmp_path):
    module = ForeignText()
    module.model.by_keyword = by_keyword
    plain_trainer(tmp_path, TBPTT(), epochs=3).fit(module, DataLoader(pieces(), batch_size=None))
    torch.testing.assert_close(list(module.model.parameters()), by_hand(3, carried=True))
    reset = by_hand(3, carried=False)
    assert any(not torch.allclose(a, b, atol=1e-4) for a, b in zip(module.model.parameters(), reset, strict=True))


def test_after_a_fit_that_raises_no_state_is_carried(tmp_path):
    class Breaks(ForeignText):
        broken = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if not self.broken:
                self.broken = True
                raise RuntimeError("broken")
            return loss

    module, callback = Breaks(), TBPTT()
    with pytest.raises(RuntimeError, match="broken"):
        plain_trainer(tmp_path, callback, epochs=3).fit(module, DataLoader(pieces(), batch_size=None))
    assert callback.state_dict()["states"][0] is not None  # for a checkpoint on an exception
    plain_trainer(tmp_path, epochs=3).fit(module, DataLoader(pieces(), batch_size=None))
    torch.testing.assert_close(list(module.model.parameters()), by_hand(3, carried=False))


def test_after_a_fit_that_raises_data_and_rates_are_as_before(tmp_path):
    run = parts(tmp_path, *text(tmp_path), "memory=tbptt", "callbacks.memory.random_length=true", "optimizer.lr=0.01")
    rates = []

    class Breaks(pl.Callback):
        def on_after_backward(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])
            if len(rates) == 3:
                raise RuntimeError("broken")

    run.trainer.callbacks.append(Breaks())
    with pytest.raises(RuntimeError, match="broken"):
        run.trainer.fit(run.module, datamodule=run.datamodule)
    assert run.datamodule.cut is None
    (optimizer,) = run.trainer.optimizers
    assert rates[-1] != 0.01 and optimizer.param_groups[0]["lr"] == 0.01
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


class SaveAt(pl.Callback):
    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == self.batch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("data", ["text", "music"])
@pytest.mark.parametrize("extra", [[], ["callbacks.memory.random_length=true", "loader=workers"]], ids=["", "random"])
@pytest.mark.parametrize("model", ["lstm", "awd_lstm", "zoneout_lstm"])
def test_tbptt_goes_on_with_its_state_as_if_it_had_never_stopped(data, extra, model, tmp_path):
    overrides = [*DATA[data](tmp_path), "memory=tbptt", "callbacks.memory.length=7", f"model={model}", *extra]
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


def test_learning_rate_of_a_random_piece_is_scaled_for_its_step_only(tmp_path):
    run = parts(
        tmp_path, *text(tmp_path), "memory=tbptt", "callbacks.memory.random_length=true", "lr_scheduler=exponential"
    )
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


def test_a_bidirectional_lstm_is_refused(tmp_path):
    class Both(Foreign):
        def __init__(self):
            super().__init__()
            self.other = nn.LSTM(1, 2, bidirectional=True)

    for callback in (TBPTT(), Recompute()):
        with pytest.raises(ConfigError, match="from"):
            fit(tmp_path, callback, module=Both())
