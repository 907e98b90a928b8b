"""Models as users run them, where the defaults of the data do not do it all."""

import json
import shutil

import numpy as np
import pytest

from lstmopt.kernels.build import COMPILERS

SMALL = "compiled for this CPU (float32" if any(map(shutil.which, COMPILERS)) else "oneDNN (float32"
TEXT = "It was a dark and stormy night; the rain fell in torrents. " * 200


def results(folder):
    return json.loads((folder / "run" / "results.json").read_text())


@pytest.mark.parametrize("embedding_size", [16, 8])
def test_awd_lstm_with_tied_embeddings_on_text(embedding_size, program):
    (program.folder / "book.txt").write_text(TEXT)
    done = program(
        "data=text", "data.path=book.txt", "model=awd_lstm", "task.tie_embeddings=true", "model.hidden_size=16",
        "model.input_dropout=0.1", f"task.embedding_size={embedding_size}", "trainer.max_epochs=1", "optimizer.lr=0.01",
        "data.batch_size=4", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = results(program.folder)
    assert found["metrics"]["val/loss"] < 0.98 * np.log(found["baseline"]["test/perplexity"])
    assert f"kernel of model.layers.0, model.layers.1: {SMALL}" in done.stdout


@pytest.mark.parametrize("model", ["awd_lstm", "layer_norm_lstm", "zoneout_lstm", "residual_lstm", "patch_lstm"])
def test_a_model_trains_an_epoch_on_co2(model, program):
    done = program(f"model={model}", "trainer.max_epochs=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    found = results(program.folder)
    assert found["metrics"]["val/loss"] < 0.03, "below the seasonal naive forecast's error"
    assert found["baseline"]["all"]["seasonal_naive"]["test/mse"] > 0.03


def test_unequal_lengths_keep_the_fused_kernel(program):
    arrays = {"x": np.random.rand(60, 9, 2), "y": np.arange(60) % 2}
    np.savez(program.folder / "whole.npz", **arrays)
    np.savez(program.folder / "ragged.npz", **arrays, lengths=np.arange(60) % 9 + 1)
    for name in ("whole", "ragged"):
        run = [f"data.path={name}.npz", f"hydra.run.dir={name}"]
        done = program("data=npz", *run, "task=classification", "model=bilstm", "trainer=debug")
        assert done.returncode == 0, done.stderr
        assert f"kernel of model.lstm: {SMALL}" in done.stdout and "no fused kernel" not in done.stderr


def test_patch_lstm_forecasts_several_targets(program):
    rows = "".join(f"{k % 7},{k % 5},{k % 3}\n" for k in range(400))
    (program.folder / "three.csv").write_text("a,b,c\n" + rows)
    done = program(
        "data=csv", "data.path=three.csv", "data.target=[a,c]", "model=patch_lstm", "model.segment_length=5",
        "data.input_length=24", "data.horizon=6", "trainer.max_epochs=2", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.isfinite(results(program.folder)["metrics"]["test/mse"])


def test_patch_lstm_needs_series_of_the_target(program):
    np.savez(program.folder / "a.npz", x=np.random.rand(60, 9, 2), y=np.random.rand(60, 1))
    for typed in (["data=npz", "data.path=a.npz", "task=forecasting"], ["data=adding"], ["data=copy_memory"]):
        done = program(*typed, "model=patch_lstm")
        assert done.returncode == 2 and "type model=lstm" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) <= 5 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("model.proj_size=64", "model.proj_size=0"),
        ("model=residual_lstm model.num_layers=1 model.dropout=0.2", "model.num_layers=2"),
        ("model=awd_lstm model.weight_dropout=1", "[0, 1)"),
        ("model=zoneout_lstm model.dropout=0.5", "there is no key model.dropout"),
    ],
)
def test_mistakes_with_models(typed, words, program):
    done = program(*typed.split())
    assert done.returncode == 2 and words in done.stderr, done.stderr
