"""A slow LSTM that reads like its equations; the fused kernels are tested against it."""

import torch
from torch import Tensor, nn


class ReferenceLSTM(nn.Module):
    r"""One layer, one direction, step by step.

    With input x_t `[B, F]`, output h_t and cell c_t `[B, H]`, h_0 = c_0 = 0, and * the elementwise product:

        i_t = sigmoid(W_xi x_t + W_hi h_{t-1} + b_i)      input gate
        f_t = sigmoid(W_xf x_t + W_hf h_{t-1} + b_f)      forget gate
        g_t = tanh(W_xg x_t + W_hg h_{t-1} + b_g)         candidate
        o_t = sigmoid(W_xo x_t + W_ho h_{t-1} + b_o)      output gate
        c_t = f_t * c_{t-1} + i_t * g_t
        h_t = o_t * tanh(c_t)

    The weights are those of an `nn.LSTM` layer (gates in the order i, f, g, o; b = b_ih + b_hh).

    Args:
        lstm: the layer whose weights are copied.
        layer: which layer of it.
        reverse: its backward direction, reading from the last step.

    Reference: Hochreiter & Schmidhuber 1997; Gers, Schmidhuber & Cummins 2000.
    """

    def __init__(self, lstm: nn.LSTM, layer: int = 0, reverse: bool = False) -> None:
        super().__init__()
        self.reverse = reverse
        suffix = f"l{layer}" + ("_reverse" if reverse else "")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            source = getattr(lstm, f"{name}_{suffix}")
            setattr(self, name, nn.Parameter(source.detach().clone()))

    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """All outputs h_t of x `[B, T, F]`, as `[B, T, H]`."""
        hidden = self.weight_hh.shape[1]
        h = x.new_zeros(len(x), hidden)
        c = x.new_zeros(len(x), hidden)
        steps = range(x.shape[1])
        outputs: dict[int, Tensor] = {}
        for t in reversed(steps) if self.reverse else steps:
            gates = x[:, t] @ self.weight_ih.T + self.bias_ih + h @ self.weight_hh.T + self.bias_hh
            i, f, g, o = gates.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs[t] = h
        return torch.stack([outputs[t] for t in steps], dim=1)
