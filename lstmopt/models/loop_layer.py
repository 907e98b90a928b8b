"""An LSTM layer as a loop in Python, for cells that no fused kernel has."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lstmopt.models.sequence_model import State, last_valid


class LoopLayer(nn.Module):
    """One layer, one direction, `[B, T, F]` to `[B, T, H]`, called like a one-layer `PaddedLSTM(batch_first=True)`.

    The products with the input are made for all steps at once; the steps follow one by one. As it stands it computes
    what `nn.LSTM` computes; a subclass changes `inputs` or `step`.

    Args:
        input_size: features F per step.
        hidden_size: units H.

    Attributes:
        because: what needs the loop, for the report of kernels.
    """

    because = "its own cell"

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        bound = hidden_size**-0.5
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size).uniform_(-bound, bound))

    def inputs(self, x: Tensor) -> Tensor:
        """The input's part of the gates' sums i, f, g, o, for all steps, `[B, T, 4 H]`."""
        return F.linear(x, self.weight_ih, self.bias)

    def step(self, inputs: Tensor, h: Tensor, c: Tensor) -> State:
        """The next h and c `[B, H]`, from the input's part `[B, 4 H]` of this step and the last h and c."""
        o, c = cell(inputs + F.linear(h, self.weight_hh), c)
        return o * torch.tanh(c), c

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """The outputs `[B, T, H]` and the state (h, c), each `[1, B, H]`, after the last (valid) step."""
        if state is None:
            h = c = self.weight_hh.new_zeros(len(x), self.hidden_size)
        else:
            h, c = state[0][0], state[1][0]
        begin = h, c
        outputs, cells = [], []
        for inputs in self.inputs(x).unbind(dim=1):
            h, c = self.step(inputs, h, c)
            outputs.append(h)
            cells.append(c)
        out = torch.stack(outputs, dim=1)
        if lengths is not None:
            lengths = lengths.to(x.device)
            h, c = last_valid(out, lengths, begin[0]), last_valid(torch.stack(cells, dim=1), lengths, begin[1])
        return out, (h[None], c[None])


def cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The output gate sigmoid(o) and the cell sigmoid(f) * c + sigmoid(i) * tanh(g), from sums `[B, 4 H]`."""
    i, f, g, o = gates.chunk(4, dim=1)
    return torch.sigmoid(o), torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
