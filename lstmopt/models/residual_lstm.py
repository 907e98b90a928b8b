"""The LSTM with skip connections."""

from torch import Tensor, nn

from lstmopt.models.initialise import initialise
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.stacked_lstm import StackedLSTM


class ResidualLSTM(StackedLSTM):
    """Stacked LSTM in which each layer above the first adds to what stands below it, `[B, T, F]`.

        y_1 = LSTM_1(x),   y_k = y_{k-1} + LSTM_k(dropout(y_{k-1}))

    Each layer is an `nn.LSTM` of its own and runs on the fused kernel; a one-layer module is also what cuDNN's
    persistent kernel asks for.

    Args:
        input_size: features F per step.
        hidden_size: units H per layer.
        num_layers: stacked layers.
        dropout: probability of dropping a unit of what a layer above the first reads; the skip is not dropped.
        return_sequences: all steps or the last valid one; see `SequenceModel`.
        forget_bias: initial bias of the forget gate; None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Reference: Wu et al. 2016, Google's neural machine translation system, section 3.1; Kim et al. 2017, Residual LSTM.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 3,
        dropout: float = 0.0,
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
        super().__init__([*layers], hidden_size, return_sequences)
        self.dropout = nn.Dropout(dropout)

    def enter(self, depth: int, x: Tensor) -> Tensor:
        """What stands below, with units dropped."""
        return self.dropout(x) if depth else x

    def leave(self, depth: int, below: Tensor, out: Tensor) -> Tensor:
        """The sum of a layer's output and what stands below it."""
        return below + out if depth else out
