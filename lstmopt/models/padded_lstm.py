"""Sequences of unequal lengths on the fused kernels."""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lstmopt.kernels import lstm_amx, lstm_cpu
from lstmopt.models.autocast import computed_in
from lstmopt.models.sequence_model import State

CLOSED = 3e4  # of a gate's sum: sigmoid(-CLOSED) is 0 and sigmoid(CLOSED) is 1, exactly; float16 holds it


class PaddedLSTM(nn.LSTM):
    """An `nn.LSTM` that also takes the lengths of padded sequences, and gives what it gives for packed ones.

    torch's kernels for `PackedSequence` run step by step on a CPU. Here one more input feature of every layer, 1 in the
    padding and 0 before it, drives the gates: the input and output gates are closed and the forget gate is open. In the
    padding the cell then keeps its value, and the output is 0, both exactly; so the last cell is that of the last valid
    step, and a backward direction comes out of the padding with the state it began with.

    What stands in the padding has to be finite, and its products with the weights well below 30,000. The feature
    costs 2 to 7 % of a training step of 64 sequences of 100 steps with H = 64. Without lengths, or where all
    are T, the call is that of `nn.LSTM`.

    Attributes:
        compiled: take a kernel of `lstmopt.kernels` where it is the faster one (`callbacks.compiled_kernel` sets it).
    """

    compiled: bool = False

    def forward(  # type: ignore[override]
        self, input: Tensor, hx: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Run over the input `[B, T, F]` (`[T, B, F]` as `batch_first` says) from the state `hx`.

        Args:
            input: sequences, padded at the end.
            hx: the state (h, c), as for `nn.LSTM`; None is zeros.
            lengths: valid steps `[B]`, 0 to T; None is all T.

        Returns:
            The output, 0 in the padding, and the state after each sequence's last valid step.
        """
        if lengths is None:
            return self._whole(input, hx)
        steps = input.shape[1 if self.batch_first else 0]
        if lengths.device.type == "cpu" and int(lengths.min()) == steps:
            return self._whole(input, hx)
        return self._by_layer(input, hx, lengths.to(input.device))

    def _whole(self, input: Tensor, hx: State | None) -> tuple[Tensor, State]:
        """Sequences that are all as long as the input: nn.LSTM's own way, or the compiled kernel's."""
        compiled = self.compiles(input) if isinstance(input, Tensor) and input.ndim == 3 else None
        if compiled and not compiled.beaten(*self.narrow()):
            return self._by_layer(input, hx, None)
        return super().forward(input, hx)

    def compiles(self, input: Tensor) -> ModuleType | None:
        """The compiled kernel that takes this input, if the layers are small enough."""
        if not self.compiled:
            return None
        dtype = computed_in(input)
        return next((kernel for kernel in (lstm_cpu, lstm_amx) if kernel.takes(self, input, dtype)), None)

    def narrow(self) -> tuple[int, int]:
        """Hidden and input size of the smallest layer."""
        above = [self.hidden_size * (1 + self.bidirectional)] * (self.num_layers > 1)
        return self.hidden_size, min([self.input_size, *above])

    def _by_layer(self, input: Tensor, hx: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """One call of the kernel for each layer."""
        x = input.transpose(0, 1) if self.batch_first else input
        directions, given = 1 + self.bidirectional, hx is not None
        if hx is None:
            size = self.num_layers * directions, x.shape[1]
            hx = x.new_zeros(*size, self.proj_size or self.hidden_size), x.new_zeros(*size, self.hidden_size)
        self.check_forward_args(input, hx, None)
        padding = [] if lengths is None else [padding_mask(lengths, len(x)).to(x.dtype)]
        last_h, last_c = [], []
        for layer in range(self.num_layers):
            here = slice(layer * directions, (layer + 1) * directions)
            h, c = hx[0][here], hx[1][here]
            features = [x, *padding]
            if lengths is not None and given and self.bidirectional:
                features.append(_at_end(h[1], lengths, len(x)).to(x.dtype))
            x, c = self._layer(features, (h, c), self.all_weights[here])
            last_h.append(self._last(x, lengths, h))
            last_c.append(c)
            if layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        # a view, so that the gradient of the output is not that of the last h as well
        out = x.transpose(0, 1) if self.batch_first else x.view_as(x)
        return out, (torch.cat(last_h), torch.cat(last_c))

    def _layer(
        self, features: list[Tensor], state: State, weights: Sequence[Sequence[Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """The output `[T, B, ...]` and the last c of one layer, of its input, the padding and what a late start needs.

        A backward direction loses its first h in the padding. Where it is not zero, it is among the features, at
        the last valid step, and its products with the recurrent weights are added there.
        """
        h, c = state
        if len(features) == 1:
            return self._run(features[0], (h, c), weights)
        columns = [[closing(self.hidden_size, of_input)[:, None]] for of_input, *_ in weights]
        if len(features) > 2:
            (_, forward, *_), (_, backward, *_) = weights
            columns[0].append(torch.zeros_like(forward))
            columns[1].append(backward)
            h = torch.stack((h[0], torch.zeros_like(h[1])))
        wider = [
            (torch.cat((of_input, *more), dim=1), *others)
            for (of_input, *others), more in zip(weights, columns, strict=True)
        ]
        return self._run(torch.cat(features, dim=2), (h, c), wider)

    def _run(self, x: Tensor, state: State, weights: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """The kernel of one layer over x `[T, B, I]`: its output and the last c."""
        compiled = self.compiles(x)
        if compiled and not compiled.beaten(self.hidden_size, x.shape[2]):
            out, c = compiled.run(x, state, weights)
            return out, c
        flat = [weight for direction in weights for weight in direction]
        out, _, c = torch.lstm(x, state, flat, self.bias, 1, 0.0, self.training, self.bidirectional, False)
        return out, c

    def _last(self, out: Tensor, lengths: Tensor | None, before: Tensor) -> Tensor:
        """The last h `[directions, B, H]` of a layer, of its output `[T, B, directions * H]`."""
        last = out[-1] if lengths is None else out[lengths - 1, torch.arange(len(lengths), device=out.device)]
        half = before.shape[2]
        last = torch.stack((last[:, :half], out[0, :, half:])) if self.bidirectional else last[None]
        if lengths is None:
            return last
        return torch.where((lengths > 0)[:, None], last, before.to(out.dtype))


def padding_mask(lengths: Tensor, steps: int) -> Tensor:
    """True in the padding, `[T, B, 1]`."""
    return torch.arange(steps, device=lengths.device)[:, None, None] >= lengths[:, None]


def closing(hidden_size: int, like: Tensor) -> Tensor:
    """What is added to the sums of the gates i, f, g, o in the padding, `[4 H]`, made on the device of `like`."""
    return torch.cat([like.new_full((hidden_size,), value) for value in (-CLOSED, CLOSED, 0.0, -CLOSED)])


def _at_end(h: Tensor, lengths: Tensor, steps: int) -> Tensor:
    """H `[B, H]` at each sequence's last valid step, else 0, `[T, B, H]`."""
    return torch.where(torch.arange(steps, device=h.device)[:, None, None] == lengths[:, None] - 1, h, 0.0)
