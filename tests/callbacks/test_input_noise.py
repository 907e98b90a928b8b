"""Noise on the inputs, against batches that were made noisy by hand."""

import pytest
import torch
from foreign import Foreign, fit, loader, sgd, trainer
from hydra import compose, initialize_config_dir
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from lstmopt.build import build
from lstmopt.callbacks.input_noise import InputNoise
from lstmopt.conf_dir import conf_dir
from lstmopt.errors import ConfigError

WORDS = [
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=3",
    "callbacks=none",
    "logger=none",
    "model.hidden_size=8",
]


class Seeded(Foreign):
    """Each step draws from a seed of its own; `std` makes its batches noisy itself."""

    def __init__(self, std=0.0):
        super().__init__(sgd)
        self.std = std

    def training_step(self, batch, batch_idx):
        torch.manual_seed(batch_idx)
        x, y = batch
        if self.std:
            x = x + self.std * torch.randn(x.shape)
        return super().training_step((x, y), batch_idx)


def trained(folder, *words):
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [*WORDS, *words])
    parts = build(cfg, str(folder))
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    return parts


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("by_keyword", [False, True])
def test_the_batches_are_those_of_noise_by_hand(by_keyword, tmp_path):
    by_hand, _ = fit(tmp_path, module=Seeded(0.5))
    module = Seeded()
    module.by_keyword = by_keyword
    fit(tmp_path, InputNoise(0.5), module=module)
    plain, _ = fit(tmp_path, module=Seeded())
    assert torch.equal(weights(module), weights(by_hand)) and not torch.equal(weights(module), weights(plain))


def test_evaluation_sees_none_and_nothing_is_left(tmp_path):
    module, run = fit(tmp_path, InputNoise(0.5))
    assert not module.lstm._forward_pre_hooks
    noise = InputNoise(0.5)
    noise.on_fit_start(run, module)
    x = torch.randn(4, 6, 1)
    module.eval()
    assert torch.equal(module.lstm(x)[0], module.lstm(x)[0])
    module.train()
    assert not torch.equal(module.lstm(x)[0], module.lstm(x)[0])


def test_its_spread_is_what_was_asked_for():
    lstm, seen = nn.LSTM(3, 4, batch_first=True), []
    noise, module = InputNoise(0.3), Foreign()
    module.lstm = lstm
    noise.on_fit_start(trainer("."), module)
    lstm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = torch.randn(100, 40, 3)
    lstm(x)
    lstm(pack_sequence(list(x)))
    assert float((seen[0] - x).std()) == pytest.approx(0.3, rel=0.03)
    assert float((seen[1].data - pack_sequence(list(x)).data).std()) == pytest.approx(0.3, rel=0.03)


def test_in_the_program_a_step_draws_the_same_noise_again(tmp_path):
    once, again = (trained(tmp_path, "callbacks=[input_noise]") for _ in range(2))
    plain = trained(tmp_path)
    assert torch.equal(weights(once.module), weights(again.module))
    assert not torch.equal(weights(once.module), weights(plain.module))
    assert not once.module.model._forward_pre_hooks


def test_what_cannot_have_noise_is_told(tmp_path):
    with pytest.raises(ConfigError, match="standard deviation"):
        InputNoise(-1.0)
    module = Foreign()
    noise = InputNoise()
    noise.on_fit_start(trainer(tmp_path), module)
    with pytest.raises(ConfigError, match="whole numbers"):
        module.lstm(torch.zeros(1, 2, 1, dtype=torch.int64))
    module.lstm = nn.GRU(1, 8, batch_first=True)
    with pytest.raises(ConfigError, match="has none"):
        trainer(tmp_path, InputNoise()).fit(module, loader(), loader())
