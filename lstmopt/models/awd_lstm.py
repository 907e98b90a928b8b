"""The LSTM with dropped weights of Merity et al."""

from torch import Tensor
from torch.nn.utils import parametrize

from lstmopt.models.initialise import initialise
from lstmopt.models.locked_dropout import LockedDropout
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.sequence_model import State
from lstmopt.models.stacked_lstm import StackedLSTM
from lstmopt.models.weight_drop import drop_weight


class AWDLSTM(StackedLSTM):
    """Stacked LSTM with dropped recurrent weights and locked dropout, on the fused kernels, `[B, T, F]`.

    One mask on the recurrent weights per layer and batch, and one per sequence and feature, the same at all steps, on
    the input, between the layers and on the output. Of the paper's other parts, averaged SGD is an optimizer, tied
    embeddings are the task's, and activation regularisation is not done.

    Args:
        input_size: features F per step.
        hidden_size: units H per layer.
        num_layers: stacked layers.
        weight_dropout: probability of dropping an entry of the recurrent matrices (the paper: 0.5).
        input_dropout: probability of dropping an input feature from a sequence (0.4 of embeddings); of a single series
            it would drop all there is.
        hidden_dropout: probability of dropping a unit between layers (0.25).
        output_dropout: probability of dropping a unit of the output (0.4).
        return_sequences: all steps or the last valid one; see `SequenceModel`.
        forget_bias: initial bias of the forget gate; None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Raises:
        ConfigError: a probability is out of range.

    Reference: Merity, Keskar & Socher 2018, Regularizing and optimizing LSTM language models.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 2,
        weight_dropout: float = 0.2,
        input_dropout: float = 0.0,
        hidden_dropout: float = 0.1,
        output_dropout: float = 0.1,
        return_sequences: bool | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
    ) -> None:
        layers = [
            PaddedLSTM(hidden_size if depth else input_size, hidden_size, batch_first=True)
            for depth in range(num_layers)
        ]
        for layer in layers:
            initialise(layer, forget_bias, orthogonal)
            drop_weight(layer, weight_dropout)
        super().__init__([*layers], hidden_size, return_sequences)
        self.input_dropout = LockedDropout(input_dropout)
        self.hidden_dropout = LockedDropout(hidden_dropout)
        self.output_dropout = LockedDropout(output_dropout)

    def enter(self, depth: int, x: Tensor) -> Tensor:
        """The input with features dropped."""
        return x if depth else self.input_dropout(x)

    def leave(self, depth: int, below: Tensor, out: Tensor) -> Tensor:
        """The layer's output with units dropped."""
        return self.output_dropout(out) if depth == len(self.layers) - 1 else self.hidden_dropout(out)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """See `SequenceModel.forward`; the masks are drawn once per call."""
        with parametrize.cached():
            return super().forward(x, lengths, state)
