"""The LSTM with zoneout."""

import torch
from torch import Tensor

from lstmopt.models.initialise import initialise
from lstmopt.models.loop_layer import LoopLayer
from lstmopt.models.sequence_model import State
from lstmopt.models.stacked_lstm import StackedLSTM


class ZoneoutLSTM(StackedLSTM):
    """Stacked LSTM whose units now and then keep their last value instead of taking the new one, `[B, T, F]`.

        c'_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g),   c_t = z_c * c_{t-1} + (1 - z_c) * c'_t
        h'_t = sigmoid(o) * tanh(c'_t),                       h_t = z_h * h_{t-1} + (1 - z_h) * h'_t

    In training z is 1 with the given probability, drawn for every step and unit; in evaluation it is that probability.

    Cost: a loop in Python over time; a training step takes 3.3 times that of `nn.LSTM` (64 windows of 96 steps, H = 64,
    one thread of a CPU).

    Args:
        input_size: features F per step.
        hidden_size: units H per layer.
        num_layers: stacked layers.
        cell_zoneout: probability that a unit's cell keeps its value (the paper: 0.5 for characters).
        hidden_zoneout: probability that a unit's output keeps its value (0.05).
        return_sequences: all steps or the last valid one; see `SequenceModel`.
        forget_bias: initial bias of the forget gate; None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Reference: Krueger et al. 2017, Zoneout: regularizing RNNs by randomly preserving hidden activations.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 1,
        cell_zoneout: float = 0.1,
        hidden_zoneout: float = 0.05,
        return_sequences: bool | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
    ) -> None:
        layers = [
            _ZoneoutLayer(hidden_size if depth else input_size, hidden_size, cell_zoneout, hidden_zoneout)
            for depth in range(num_layers)
        ]
        for layer in layers:
            initialise(layer, forget_bias, orthogonal)
        super().__init__([*layers], hidden_size, return_sequences)


class _ZoneoutLayer(LoopLayer):
    """One layer of it."""

    because = "zoneout"

    def __init__(self, input_size: int, hidden_size: int, cell_zoneout: float, hidden_zoneout: float) -> None:
        super().__init__(input_size, hidden_size)
        self.cell_zoneout, self.hidden_zoneout = cell_zoneout, hidden_zoneout

    def step(self, inputs: Tensor, h: Tensor, c: Tensor) -> State:
        """The next h and c."""
        new_h, new_c = super().step(inputs, h, c)
        return self._kept(new_h, h, self.hidden_zoneout), self._kept(new_c, c, self.cell_zoneout)

    def _kept(self, new: Tensor, old: Tensor, probability: float) -> Tensor:
        """New values, and here and there the old one."""
        if probability == 0:
            return new
        return torch.lerp(new, old, torch.empty_like(new).bernoulli_(probability) if self.training else probability)
