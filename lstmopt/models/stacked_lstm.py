"""One-layer LSTMs on top of each other, with room for something between them."""

import torch
from torch import Tensor, nn

from lstmopt.models.sequence_model import SequenceModel, State


class StackedLSTM(SequenceModel):
    """A stack of one-layer LSTMs; what happens before, between and after them is a subclass's to say.

    Args:
        layers: from x `[B, T, F]`, a state (h, c), each `[1, B, H]`, and lengths `[B]` to the output `[B, T, H]` and
            the new state, as `PaddedLSTM(..., batch_first=True)` does.
        output_size: features of an output, as for `SequenceModel`.
        return_sequences: as for `SequenceModel`.
    """

    def __init__(self, layers: list[nn.Module], output_size: int, return_sequences: bool | None = None) -> None:
        super().__init__(output_size, return_sequences)
        self.layers = nn.ModuleList(layers)

    def enter(self, depth: int, x: Tensor) -> Tensor:
        """What layer `depth` (0: the lowest) reads, given what stands below it."""
        return x

    def leave(self, depth: int, below: Tensor, out: Tensor) -> Tensor:
        """What stands above layer `depth`, given what stands below it and the layer's output."""
        return out

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """See `SequenceModel.forward`; the state is `[layers, B, H]`."""
        states: list[State] = []
        for depth, layer in enumerate(self.layers):
            before = None if state is None else (state[0][depth : depth + 1], state[1][depth : depth + 1])
            out, after = layer(self.enter(depth, x), before, lengths)
            x = self.leave(depth, x, out)
            states.append(after)
        h, c = (torch.cat(parts) for parts in zip(*states, strict=True))
        return self.chosen(x, lengths), (h, c)
