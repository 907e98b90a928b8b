"""The LSTM with layer normalisation."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lstmopt.models.initialise import initialise
from lstmopt.models.loop_layer import LoopLayer, cell
from lstmopt.models.sequence_model import State
from lstmopt.models.stacked_lstm import StackedLSTM


class LayerNormLSTM(StackedLSTM):
    """Stacked LSTM whose sums are normalised over their units at every step, `[B, T, F]`.

        (i, f, g, o) = LN(W_h h_{t-1}; a_h) + LN(W_x x_t + s; a_x) + b
        c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
        h_t = sigmoid(o) * tanh(LN(c_t; a_c, b_c))

    with gains a and shifts b. The shift s inside is not in the paper: without it the norm of W_x x of a single feature
    would keep nothing of it but its sign.

    Cost: a loop in Python over time; a training step takes 3.2 times that of `nn.LSTM` (64 windows of 96 steps, H = 64,
    one thread of a CPU).

    Args:
        input_size: features F per step.
        hidden_size: units H per layer.
        num_layers: stacked layers.
        dropout: probability of dropping a unit between layers.
        return_sequences: all steps or the last valid one; see `SequenceModel`.
        forget_bias: initial bias of the forget gate; None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Reference: Ba, Kiros & Hinton 2016, Layer normalization, equations 20 to 22.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        return_sequences: bool | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
    ) -> None:
        layers = [_LayerNormLayer(hidden_size if depth else input_size, hidden_size) for depth in range(num_layers)]
        for layer in layers:
            initialise(layer, forget_bias, orthogonal)
        super().__init__([*layers], hidden_size, return_sequences)
        self.dropout = nn.Dropout(dropout)

    def enter(self, depth: int, x: Tensor) -> Tensor:
        """What stands below, with units dropped."""
        return self.dropout(x) if depth else x


class _LayerNormLayer(LoopLayer):
    """One layer of it."""

    because = "layer norm"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        bound = hidden_size**-0.5
        self.shift_ih = nn.Parameter(torch.empty(4 * hidden_size).uniform_(-bound, bound))
        self.gain_ih = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_hh = nn.Parameter(torch.ones(4 * hidden_size))
        self.gain_cell = nn.Parameter(torch.ones(hidden_size))
        self.shift_cell = nn.Parameter(torch.zeros(hidden_size))

    def inputs(self, x: Tensor) -> Tensor:
        """LN(W_x x + s; a_x) + b."""
        products = F.linear(x, self.weight_ih, self.shift_ih)
        return F.layer_norm(products, self.gain_ih.shape, self.gain_ih, self.bias)

    def step(self, inputs: Tensor, h: Tensor, c: Tensor) -> State:
        """The next h and c."""
        o, c = cell(inputs + F.layer_norm(F.linear(h, self.weight_hh), self.gain_hh.shape, self.gain_hh), c)
        normalised = F.layer_norm(c, self.gain_cell.shape, self.gain_cell, self.shift_cell)
        return o * torch.tanh(normalised), c
