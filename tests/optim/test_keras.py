"""The Keras presets against Keras itself, on its torch backend: the same weights, the same batches, 200 steps."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import pytest
import torch
from torch import nn

keras = pytest.importorskip("keras", reason="pip install lstmopt[dev] brings keras")

from lstmopt.callbacks.gradient_norm_clipping import GradientNormClipping  # noqa: E402
from lstmopt.callbacks.gradient_value_clipping import GradientValueClipping  # noqa: E402
from lstmopt.callbacks.keras_reduce_lr_on_plateau import KerasReduceLROnPlateau  # noqa: E402
from lstmopt.callbacks.per_weight_norm_clipping import PerWeightNormClipping  # noqa: E402
from lstmopt.optim.keras_adam import KerasAdam  # noqa: E402
from lstmopt.optim.keras_rmsprop import KerasRMSprop  # noqa: E402

K = keras.optimizers
CASES = {
    "adam": (lambda: K.Adam(0.003), lambda p: KerasAdam(p, 0.003), None),
    "adam_amsgrad": (lambda: K.Adam(0.003, amsgrad=True), lambda p: KerasAdam(p, 0.003, amsgrad=True), None),
    "rmsprop": (lambda: K.RMSprop(0.002), lambda p: KerasRMSprop(p, 0.002), None),
    "rmsprop_momentum": (
        lambda: K.RMSprop(0.001, momentum=0.8),
        lambda p: KerasRMSprop(p, 0.001, momentum=0.8),
        None,
    ),
    "rmsprop_centered": (
        lambda: K.RMSprop(0.001, centered=True),
        lambda p: KerasRMSprop(p, 0.001, centered=True),
        None,
    ),
    "sgd": (
        lambda: K.SGD(0.05, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True),
        None,
    ),
    "clipnorm": (
        lambda: K.SGD(0.05, clipnorm=0.05),
        lambda p: torch.optim.SGD(p, 0.05),
        lambda: PerWeightNormClipping(0.05),
    ),
    "global_clipnorm": (
        lambda: K.Adam(0.003, global_clipnorm=0.05),
        lambda p: KerasAdam(p, 0.003),
        lambda: GradientNormClipping(0.05),
    ),
    "clipvalue": (
        lambda: K.SGD(0.05, clipvalue=0.01),
        lambda p: torch.optim.SGD(p, 0.05),
        lambda: GradientValueClipping(0.01),
    ),
}


class Ours(nn.Module):
    """An LSTM and a linear layer with one bias per layer, as Keras has."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 1)
        self.lstm.bias_hh_l0.requires_grad_(False).zero_()

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

    def load(self, weights):
        """Keras: kernels transposed, gates i, f, c, o like torch's i, f, g, o."""
        kernel, recurrent, bias, head, head_bias = (torch.tensor(w) for w in weights)
        with torch.no_grad():
            self.lstm.weight_ih_l0.copy_(kernel.T)
            self.lstm.weight_hh_l0.copy_(recurrent.T)
            self.lstm.bias_ih_l0.copy_(bias)
            self.head.weight.copy_(head.T)
            self.head.bias.copy_(head_bias)

    def dump(self):
        lstm, head = self.lstm, self.head
        tensors = (lstm.weight_ih_l0.T, lstm.weight_hh_l0.T, lstm.bias_ih_l0, head.weight.T, head.bias)
        return [t.detach().numpy() for t in tensors]


@pytest.mark.parametrize("case", CASES)
def test_two_hundred_steps(case):
    make_theirs, make_ours, make_clipping = CASES[case]
    keras.utils.set_random_seed(0)
    theirs = keras.Sequential([keras.Input((6, 3)), keras.layers.LSTM(8), keras.layers.Dense(1)])
    theirs.compile(make_theirs(), "mse")
    ours = Ours()
    ours.load(theirs.get_weights())
    start = [w.copy() for w in ours.dump()]
    parameters = [p for p in ours.parameters() if p.requires_grad]
    optimizer = make_ours(parameters)
    clipping = make_clipping() if make_clipping else None
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = rng.normal(size=(16, 6, 3)).astype(np.float32)
        y = x[:, :, :1].mean(axis=1)
        theirs.train_on_batch(x, y)
        optimizer.zero_grad()
        ((ours(torch.tensor(x)) - torch.tensor(y)) ** 2).mean().backward()
        if clipping:
            norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters]))
            clipping.clip(parameters, norm)
        optimizer.step()
    for moved, expected, before in zip(ours.dump(), theirs.get_weights(), start, strict=True):
        assert np.abs(moved - before).max() > 1e-3
        np.testing.assert_allclose(moved, expected, atol=1e-5, rtol=0)


SWITCHED = {
    "momentum": (KerasRMSprop, {"momentum": 0.8}),
    "centered": (KerasRMSprop, {"centered": True}),
    "amsgrad": (KerasAdam, {"amsgrad": True}),
}


@pytest.mark.parametrize("name", SWITCHED)
def test_what_is_switched_on_later_begins_with_an_empty_buffer(name):
    cls, options = SWITCHED[name]
    p = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer, gradients = cls([p], lr=0.1), torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    w, m, v, more = p.detach().numpy().astype(float), 0.0, 0.0, 0.0
    for step, gradient in enumerate(gradients):
        if step == 3:
            optimizer.param_groups[0].update(options)
        p.grad, g, late = gradient.clone(), gradient.numpy().astype(float), step >= 3
        optimizer.step()
        if cls is KerasAdam:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            more = np.maximum(more, v) if late else more
            rate = 0.1 * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
            w = w - rate * m / (np.sqrt(more if late else v) + 1e-7)
            continue
        v = 0.9 * v + 0.1 * g**2
        m = 0.9 * m + 0.1 * g if late and name == "centered" else m
        increment = 0.1 * g / np.sqrt(v - m**2 + 1e-7)
        more = 0.8 * more + increment if late and name == "momentum" else more
        w = w - (more if late and name == "momentum" else increment)
    np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-4)


LOSSES = {
    "stands still": [1.0, *[0.9] * 18],
    "slowly better": [1.0 - 0.00004 * k for k in range(20)],
    "now and then better": [1.0, 0.9, 0.9, 0.9, 0.8, 0.9, 0.9, 0.9, 0.9, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.6, 0.6, 0.6],
    "worse": [0.1 * k for k in range(1, 20)],
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("cooldown", [0, 1, 2, 3])
@pytest.mark.parametrize("patience", [0, 1, 2, 4])
def test_plateau_has_the_rates_of_keras(losses, cooldown, patience):
    options = {"factor": 0.5, "patience": patience, "cooldown": cooldown, "min_delta": 1e-4, "min_lr": 1e-3}
    theirs = keras.callbacks.ReduceLROnPlateau("loss", **options)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(K.SGD(0.01), "mse")
    theirs.set_model(model)
    theirs.on_train_begin()

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.01)
    plateau = KerasReduceLROnPlateau("loss", **options)

    class Trainer:
        optimizers = [optimizer]
        callback_metrics: dict = {}

    plateau.on_train_start(Trainer, None)
    expected, rates = [], []
    for epoch, loss in enumerate(losses):
        theirs.on_epoch_end(epoch, {"loss": loss})
        expected.append(float(model.optimizer.learning_rate.numpy()))
        Trainer.callback_metrics = {"loss": torch.tensor(loss, dtype=torch.float64)}
        plateau._step(Trainer)
        rates.append(optimizer.param_groups[0]["lr"])
    np.testing.assert_array_equal(np.float32(rates), np.float32(expected))
    assert patience > 2 or rates[-1] < 0.01
