"""The LSTM on torch's fused kernels (oneDNN on the CPU, cuDNN on a GPU)."""

import torch
from torch import Tensor

from lstmopt.models.initialise import initialise
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.sequence_model import SequenceModel, State


class LSTM(SequenceModel):
    """Stacked LSTM, one- or bidirectional, over batches of shape `[B, T, F]`.

    The equations are those of `lstmopt.models.reference.ReferenceLSTM`, to which the tests hold it.

    Args:
        input_size: features F per step.
        hidden_size: units H per layer and direction.
        num_layers: stacked layers.
        dropout: probability of dropping a unit between layers.
        bidirectional: a second LSTM reads the sequence from its end.
        proj_size: outputs and recurrent inputs are a linear map of the H units to P < H (Sak et al. 2014); 0: none.
            On a CPU it costs the fused kernel.
        return_sequences: true gives all steps `[B, T, D]`, false only the last valid one `[B, D]`, D = H (or P), twice
            that with two directions (of the backward one its state after reading the first step). None leaves it
            to `LSTMModule`, which takes what its task needs; on its own None is true.
        forget_bias: initial bias of the forget gate (Jozefowicz et al. 2015: 1.0); None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate (Saxe et al. 2014).

    Raises:
        ValueError: `proj_size` is not smaller than `hidden_size`.

    Reference: Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000.
    """

    layers: type[PaddedLSTM] = PaddedLSTM

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        return_sequences: bool | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
    ) -> None:
        super().__init__((proj_size or hidden_size) * (2 if bidirectional else 1), return_sequences)
        self.lstm = self.layers(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
            proj_size=proj_size,
        )
        initialise(self.lstm, forget_bias, orthogonal)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Run over x `[B, T, F]` whose sequences have `lengths` `[B]` valid steps (None: all T), from `state`.

        Returns:
            The output (see `return_sequences`) and the state (h, c), h `[layers * directions, B, H]` (or P) and c
            `[layers * directions, B, H]`. Output beyond a sequence's length is 0; the state is that after each
            sequence's last valid step (of the backward direction, the first step).
        """
        out, state = self.lstm(x, state, lengths)
        return self.chosen(out, lengths), state

    def last(self, out: Tensor, lengths: Tensor | None) -> Tensor:
        """The output at each sequence's last valid step, `[B, T, D]` to `[B, D]`.

        Of a bidirectional output the backward half is taken at the first step, where it has read all.
        """
        last = super().last(out, lengths)
        if not self.lstm.bidirectional:
            return last
        half = self.output_size // 2
        return torch.cat((last[:, :half], out[:, 0, half:]), dim=1)
