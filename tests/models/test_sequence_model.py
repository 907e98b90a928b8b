"""What holds for every model there is, found by walking its YAML files."""

from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_object

from lstmopt.conf_dir import conf_dir
from lstmopt.models.lstm import LSTM
from lstmopt.models.sequence_model import SequenceModel

OPTIONS = {file.stem: yaml.safe_load(file.read_text()) for file in (Path(conf_dir()) / "model").glob("*.yaml")}
ONE_WAY = {
    **{name: (get_object(node["_target_"]), {}) for name, node in OPTIONS.items() if name not in ("bilstm",)},
    "lstm_proj": (LSTM, {"proj_size": 2}),
}
PER_STEP = [name for name in ONE_WAY if not ONE_WAY[name][0].per_channel]
LENGTHS = torch.tensor([16, 3, 1, 9])


def make(name, **options):
    torch.manual_seed(0)
    cls, more = ONE_WAY[name]
    return cls(3, **{"hidden_size": 6, "num_layers": 2} | more | options).eval()


def test_models_are_found():
    assert len(OPTIONS) >= 7
    assert all(issubclass(get_object(node["_target_"]), SequenceModel) for node in OPTIONS.values())


@pytest.mark.parametrize("name", ONE_WAY)
def test_state_over_two_halves_equals_the_whole(name):
    model, x = make(name), torch.randn(4, 16, 3)
    whole, state = model(x)
    first, between = model(x[:, :8])
    second, after = model(x[:, 8:], state=between)
    torch.testing.assert_close(torch.cat((first, second), dim=1), whole, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(after, state, atol=1e-6, rtol=1e-5)
    other, _ = model(x[:, 8:])
    assert not torch.allclose(other, second, atol=1e-4), "the state matters"
    assert state[0].shape[0] == state[1].shape[0] == 2
    assert state[1].shape[2] == 6


@pytest.mark.parametrize("name", PER_STEP)
@pytest.mark.parametrize("return_sequences", [False, True])
def test_unequal_lengths_equal_each_sequence_alone(name, return_sequences):
    model, x = make(name, return_sequences=return_sequences), torch.randn(4, 16, 3)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = 99.0
    out, _ = model(x, LENGTHS)
    assert out.shape == ((4, 16, model.output_size) if return_sequences else (4, model.output_size))
    for row, length in enumerate(LENGTHS):
        alone, _ = model(x[row : row + 1, :length])
        got = out[row, :length] if return_sequences else out[row]
        torch.testing.assert_close(got, alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in ONE_WAY if "forget_bias" in OPTIONS[name.removesuffix("_proj")]])
def test_initialisation_options(name):
    model = make(name, forget_bias=1.0, orthogonal=True)
    recurrent = biases = 0
    for path, parameter in model.named_parameters():
        if "weight_hh" in path:
            recurrent += 1
            for gate in parameter.chunk(4):
                torch.testing.assert_close(gate.T @ gate, torch.eye(gate.shape[1]), atol=1e-5, rtol=1e-5)
        if path.rsplit(".", 1)[-1].startswith("bias") and "embedding" not in path:
            biases += 1
            assert (parameter.chunk(4)[1] == (0.0 if "bias_hh" in path else 1.0)).all()
    assert recurrent == 2 and biases >= 2


@pytest.mark.parametrize("name", ONE_WAY)
def test_every_parameter_gets_a_gradient(name):
    model = make(name).train()
    model(torch.randn(4, 16, 3))[0].square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
