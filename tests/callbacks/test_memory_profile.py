"""The memory of layers, against sizes worked out by hand."""

import pytest
import pytorch_lightning as pl
import torch
from foreign import trainer
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.data import DataLoader, TensorDataset

from lstmopt.callbacks.memory_profile import MemoryProfile
from lstmopt.profilers.layers import KeptForBackward, lstm_estimate

B, T, F, H = 8, 20, 3, 16


class Model(pl.LightningModule):
    def __init__(self, make_optimizer=torch.optim.Adam):
        super().__init__()
        self.lstm, self.act, self.head = nn.LSTM(F, H, 2, batch_first=True), nn.Tanh(), nn.Linear(H, 1)
        self.head.bias.requires_grad_(False)
        self.make_optimizer = make_optimizer

    def training_step(self, batch, batch_idx):
        x, y = batch
        return ((self.head(self.act(self.lstm(x)[0])) - y) ** 2).mean()

    def configure_optimizers(self):
        return self.make_optimizer([p for p in self.parameters() if p.requires_grad], lr=1e-3)


def profiled(tmp_path, model, **options):
    x = torch.randn(B * 6, T, F)
    loader = DataLoader(TensorDataset(x, x.mean(dim=2, keepdim=True)), batch_size=B)
    trainer(tmp_path, MemoryProfile(wait=1, warmup=1, active=2), epochs=1, **options).fit(model, loader)
    text = (tmp_path / "profile" / "memory.txt").read_text()
    table = text.split("Layers\n")[1].split("\n\n")[0].splitlines()[2:]
    return text, {line.split("  ")[0].strip(): line.split()[1:] for line in table}


def mb(n):
    return f"{n / 1e6:.3f}"


def test_layers_by_hand(tmp_path):
    text, rows = profiled(tmp_path, Model())
    lstm = 4 * (4 * H * (F + H) + 8 * H + 4 * H * (H + H) + 8 * H)
    state = 2 * lstm + 8 * 4  # Adam: two moments of each, and a step counter of 4 bytes for each of 8 tensors
    estimate = B * T * 2 * 24 * H
    assert rows["lstm"][:3] == [mb(lstm), mb(lstm), mb(state)] and rows["lstm"][4] == mb(estimate)
    head = [mb(4 * (H + 1)), mb(4 * H), mb(8 * H + 4)]
    assert rows["head"][:3] == head
    # tanh keeps its output; the head a copy of it, because batch_first transposes and the product wants rows
    assert rows["act"] == [mb(0)] * 3 + [mb(4 * B * T * H)]
    assert rows["head"][3] == mb(4 * B * T * H)
    assert float(rows["lstm"][3]) >= float(rows["lstm"][4])
    assert float(rows["all"][2]) == pytest.approx((state + 8 * H + 4) / 1e6, abs=1e-3)
    assert text.startswith("Activations take") and "data.batch_size=4" in text and "memory=recompute" in text
    assert "aten::mkldnn_rnn_layer" in text


def test_a_run_that_breaks_while_the_layers_are_looked_at(tmp_path):
    class Breaks(Model):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            if batch_idx == 1:
                raise RuntimeError("broken")
            return loss

    model = Breaks()
    with pytest.raises(RuntimeError, match="broken"):
        profiled(tmp_path, model)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    assert not torch._C._autograd._top_saved_tensors_default_hooks(True), "hooks were left behind"
    text = (tmp_path / "profile" / "memory.txt").read_text()
    assert "Layers" in text and "recording begins after 3" in text


def test_state_by_optimizer(tmp_path):
    _, rows = profiled(tmp_path, Model(torch.optim.SGD))
    assert rows["all"][2] == "0.000"
    _, rows = profiled(tmp_path, Model(lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)))
    assert rows["lstm"][2] == rows["lstm"][0]


def test_what_is_kept_is_what_autograd_holds():
    """Counted on modules whose needs are known: the input of a product, the output of a sigmoid, and nothing twice."""

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.gate = nn.Linear(10, 20, bias=False), nn.Sigmoid()

        def forward(self, x):
            return self.gate(self.first(x * 2)).relu()

    chain = Chain()
    kept = KeptForBackward(chain)
    x = torch.randn(5, 10)
    with kept:
        out = chain(x)
    assert kept.by_layer() == {"first": 4 * 50, "gate": 4 * 100, "(outside of layers)": 4 * 100}
    kept.add_given({"x": [x]})
    with kept:
        chain.first(x)
    assert kept.by_layer() == {}
    kept.remove()
    with kept:
        chain(x)
    assert set(kept.by_layer()) == {"(outside of layers)"}
    out.sum().backward()


def test_native_lstm_needs_what_the_equations_say():
    """Per step and layer: four gates, c and h (and tanh(c)); the estimate is a lower bound of what is measured."""
    model = nn.Sequential(nn.LSTM(F, H, batch_first=True))
    x = torch.randn(B, T, F)
    estimate = lstm_estimate(model[0], B * T)
    assert estimate == 24 * H * B * T
    for fused in (True, False):
        kept = KeptForBackward(model)
        kept.add_given(x)
        with torch.backends.mkldnn.flags(enabled=fused), kept:
            model(x)
        kept.remove()
        assert estimate <= sum(kept.by_layer().values()) <= 4 * estimate
    packed = KeptForBackward(model)
    with packed:
        model(pack_padded_sequence(x, torch.arange(T, T - B, -1), batch_first=True))
    assert packed.tokens == {"0": int(torch.arange(T, T - B, -1).sum())}
