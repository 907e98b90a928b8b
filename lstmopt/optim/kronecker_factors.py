"""The two small matrices whose Kronecker product stands for the Fisher information of a layer's weights."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lstmopt.models.padded_lstm import closing, padding_mask
from lstmopt.models.sequence_model import last_valid

State = tuple[Tensor, Tensor]
Rows = tuple[Tensor, Tensor]


class Run(NamedTuple):
    """What one run of an `nn.LSTM` has left.

    Attributes:
        x: its input, `[B, T, F]` or `[T, B, F]` as the module has it.
        state: the state it began with, each `[layers, B, H]`; None for zeros.
        outputs: its output and last states, in the graph.
        random: the CPU generator's state before it, so that dropout between layers is the same; on a GPU it is not.
        lengths: valid steps `[B]`, as `PaddedLSTM` takes them; None is all.
    """

    x: Tensor
    state: State | None
    outputs: tuple[Tensor, Tensor, Tensor]
    random: Tensor
    lengths: Tensor | None = None


def factors(inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """A and G of a matrix used in N rows, with inputs `[N, I]` and gradients of its products `[N, O]`.

    With Fisher information E[grad grad^T] summed over independent cases, and inputs, gradients and rows (time steps)
    taken for independent, it is the Kronecker product of A = mean over rows of a a^T and G = sum over rows of g g^T.
    A row without any gradient is one that the loss does not see (a step beyond a sequence's end), and does not count.

    Reference: Martens & Grosse 2015; Martens, Ba & Johnson 2018, section 3.
    """
    seen = (gradients != 0).any(dim=1)
    inputs, gradients = inputs[seen], gradients[seen]
    return inputs.T @ inputs / max(len(inputs), 1), gradients.T @ gradients


def with_one(inputs: Tensor, bias: bool) -> Tensor:
    """The inputs `[N, I]`, and a column of ones where there is a bias."""
    return torch.cat((inputs, inputs.new_ones(len(inputs), 1)), dim=1) if bias else inputs


def linear_rows(linear: nn.Linear, x: Tensor, gradient: Tensor) -> Rows:
    """Inputs `[N, I + 1]` (`[N, I]` without bias) and gradients `[N, O]`; of x `[..., I]`, gradient `[..., O]`."""
    x, gradient = x.to(linear.weight.dtype), gradient.to(linear.weight.dtype)
    return with_one(x.flatten(0, -2), linear.bias is not None), gradient.flatten(0, -2)


def lstm_rows(lstm: nn.LSTM, run: Run, gradients: tuple[Tensor, ...]) -> list[Rows]:
    """Inputs [x_t, h_{t-1}, 1] and gradients of the gates before their activations, of each layer.

    The layers run again on the fused kernel, one by one, their inputs beside 4 H features that are zero and go into the
    gates with the weight one: the gradient of such a feature is that of a gate, exactly. In the padding they close the
    gates, as `PaddedLSTM` does.

    Args:
        lstm: one-directional, without projections.
        run: a run of it.
        gradients: of a loss, with respect to `run.outputs`.
    """
    hidden, dtype = lstm.hidden_size, next(lstm.parameters()).dtype
    x = run.x.detach().to(dtype)
    x = x.transpose(0, 1) if lstm.batch_first else x
    zeros = x.new_zeros(lstm.num_layers, x.shape[1], hidden)
    h0, c0 = (zeros, zeros) if run.state is None else (s.detach().to(dtype) for s in run.state)
    closed = x.new_zeros(*x.shape[:2], 4 * hidden)
    lengths = None if run.lengths is None else run.lengths.to(x.device)
    if lengths is not None:
        closed = padding_mask(lengths, len(x)) * closing(hidden, closed)
    probes, inputs, last_h, last_c = [], [], [], []
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(run.random)
        for layer in range(lstm.num_layers):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 2 + 2 * lstm.bias]
            weights = [getattr(lstm, f"{name}_l{layer}").detach() for name in names]
            weights[0] = torch.cat((weights[0], torch.eye(4 * hidden, dtype=dtype, device=x.device)), dim=1)
            probe = closed.clone().requires_grad_()
            begin = (h0[layer : layer + 1], c0[layer : layer + 1])
            out, h, c = torch.lstm(torch.cat((x, probe), dim=2), begin, weights, lstm.bias, 1, 0.0, True, False, False)
            before = torch.cat((begin[0], out[:-1])).detach()
            inputs.append(with_one(torch.cat((x.detach(), before), dim=2).flatten(0, 1), lstm.bias))
            probes.append(probe)
            last_h.append(h if lengths is None else last_valid(out.transpose(0, 1), lengths, begin[0][0])[None])
            last_c.append(c)
            x = F.dropout(out, lstm.dropout) if lstm.dropout and layer < lstm.num_layers - 1 else out
    ends = (x.transpose(0, 1) if lstm.batch_first else x, torch.cat(last_h), torch.cat(last_c))
    gates = torch.autograd.grad(ends, probes, [g.to(dtype) for g in gradients])
    return [(i, g.flatten(0, 1)) for i, g in zip(inputs, gates, strict=True)]
