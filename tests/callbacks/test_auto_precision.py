"""precision=auto: what is faster is taken, and nothing is changed by finding out."""

import pytest
import torch
from foreign import Foreign, fit
from hydra import compose, initialize_config_dir

from lstmopt.build import build
from lstmopt.callbacks import auto_precision
from lstmopt.callbacks.auto_precision import AutoPrecision
from lstmopt.conf_dir import conf_dir

SMALL = ["data.input_length=8", "data.horizon=2", "model.hidden_size=4", "model.num_layers=2", "model.dropout=0.3"]


def parts(*overrides, folder="."):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        fixed = ["callbacks=none", "logger=none", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
        return build(compose("train", [*SMALL, *fixed, *overrides]), str(folder))


def trained(*overrides, folder="."):
    found = parts(*overrides, folder=folder)
    found.trainer.fit(found.module, datamodule=found.datamodule)
    return found


@pytest.mark.parametrize(
    ("plain", "short", "precision"),
    [pytest.param(1.0, 0.9, "bf16-mixed", marks=pytest.mark.bf16), (1.0, 0.99, "32-true")],
)
def test_the_faster_format_is_taken(plain, short, precision, monkeypatch, capsys):
    monkeypatch.setattr(auto_precision, "computes_in_bf16", lambda device: True)
    monkeypatch.setattr(auto_precision, "seconds", lambda *_: (plain, short))
    found = trained("precision=auto")
    assert found.trainer.precision == precision
    assert f"precision: {precision} (forward and backward 1000.0 ms" in capsys.readouterr().out
    option = {"bf16-mixed": "bf16_mixed", "32-true": "fp32"}[precision]
    same = trained(f"precision={option}")
    for one, other in zip(found.module.parameters(), same.module.parameters(), strict=True):
        assert torch.equal(one, other)  # the trial left weights and random numbers alone


@pytest.mark.bf16
def test_the_trial_measures_and_leaves_no_gradient(monkeypatch):
    found = parts()
    batch = found.datamodule.splits["train"].batch(torch.arange(16))
    state = torch.get_rng_state()
    taken = auto_precision.seconds(found.module, batch, torch.device("cpu"))
    assert all(0 < one < 2 for one in taken)
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in found.module.parameters())


def test_without_bf16_arithmetic_it_is_float32(monkeypatch, capsys):
    monkeypatch.setattr(auto_precision, "computes_in_bf16", lambda device: False)
    assert trained("precision=auto").trainer.precision == "32-true"
    assert "no bfloat16 arithmetic" in capsys.readouterr().out


@pytest.mark.bf16
def test_a_resumed_run_keeps_the_choice(monkeypatch, tmp_path):
    monkeypatch.setattr(auto_precision, "computes_in_bf16", lambda device: True)
    module, run = fit(tmp_path, AutoPrecision(), module=Foreign())
    assert module.dtypes == {torch.bfloat16}
    run.save_checkpoint(tmp_path / "last.ckpt")
    monkeypatch.setattr(auto_precision, "computes_in_bf16", lambda device: False)
    callback = AutoPrecision()
    module, _ = fit(tmp_path, callback, module=Foreign(), epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert callback.chosen == "bf16-mixed" and module.dtypes == {torch.bfloat16}


@pytest.mark.parametrize("choice", ["none", "no callback"])
def test_a_float32_run_that_is_resumed_stays_in_float32(choice, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(auto_precision, "computes_in_bf16", lambda device: True)
    before = AutoPrecision()
    before.on_fit_start = lambda *_: None  # a checkpoint with its state, and no choice in it
    _, run = fit(tmp_path, *[before] * (choice == "none"), module=Foreign())
    run.save_checkpoint(tmp_path / "last.ckpt")
    callback = AutoPrecision()
    module, run = fit(tmp_path, callback, module=Foreign(), epochs=3, ckpt_path=tmp_path / "last.ckpt")
    assert callback.chosen == "32-true" and run.precision == "32-true" and module.dtypes == {torch.float32}
    assert "precision: 32-true (as the run began)" in capsys.readouterr().out
