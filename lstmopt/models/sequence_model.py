"""What all models share."""

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class SequenceModel(nn.Module):
    """Batches of sequences `[B, T, F]` to outputs of `output_size` features. A model option is a subclass.

    Args:
        output_size: features D of an output.
        return_sequences: true gives all steps `[B, T, D]`, false only the last valid one `[B, D]`. None leaves it to
            `LSTMModule`, which takes what its task needs; on its own None is true.

    Attributes:
        per_channel: an output is `[B, F, D]`, one for each input channel by itself.
    """

    per_channel = False

    def __init__(self, output_size: int, return_sequences: bool | None = None) -> None:
        super().__init__()
        self.output_size, self.return_sequences = output_size, return_sequences

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Run over x `[B, T, F]` whose sequences have `lengths` `[B]` valid steps (None: all T), from `state`.

        Returns:
            The output (see `return_sequences`) and the state (h, c) after each sequence's last valid step, each
            `[layers, B, H]`. Output beyond a sequence's length is not meaningful and never used.
        """
        raise NotImplementedError

    def last(self, out: Tensor, lengths: Tensor | None) -> Tensor:
        """The output at each sequence's last valid step, `[B, T, D]` to `[B, D]`."""
        if lengths is None:
            return out[:, -1]
        return out[torch.arange(len(out), device=out.device), lengths.to(out.device) - 1]

    def chosen(self, out: Tensor, lengths: Tensor | None) -> Tensor:
        """All steps of an output `[B, T, D]`, or the last valid one, as `return_sequences` says."""
        return self.last(out, lengths) if self.return_sequences is False else out


def last_valid(values: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
    """Values `[B, T, H]` at each sequence's last valid step, and `before` `[B, H]` where it has none, `[B, H]`."""
    last = values[torch.arange(len(values), device=values.device), lengths - 1]
    return torch.where((lengths > 0)[:, None], last, before.to(last.dtype))
