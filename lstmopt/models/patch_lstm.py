"""A forecaster that reads each series by itself, in segments."""

from torch import Tensor, nn
from torch.nn import functional as F

from lstmopt.errors import ConfigError
from lstmopt.models.initialise import initialise
from lstmopt.models.sequence_model import SequenceModel, State


class PatchLSTM(SequenceModel):
    """An LSTM over segments of each channel by itself, `[B, T, F]` to `[B, F, D]`; for forecasting.

    All channels share the weights: a window becomes F sequences of T / segment_length steps, each step a segment
    mapped to H features (linear, ReLU). The recurrence is as many times shorter. Where the segment does not divide T,
    the window is made longer at its front by repeating its first row.

    Args:
        input_size: channels F; the weights do not depend on it.
        hidden_size: units H per layer.
        num_layers: stacked layers.
        segment_length: steps of the series per step of the LSTM.
        dropout: probability of dropping a unit of what goes to the head.
        return_sequences: true gives all segments `[B, T / segment_length, F, D]`, false the last `[B, F, D]`; None
            leaves it to `LSTMModule`.
        forget_bias: initial bias of the forget gate; None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Reference: channels apart: Nie et al. 2023, PatchTST; segments: Lin et al. 2023, SegRNN.
    """

    per_channel = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 1,
        segment_length: int = 8,
        dropout: float = 0.0,
        return_sequences: bool | None = None,
        forget_bias: float | None = None,
        orthogonal: bool = False,
    ) -> None:
        super().__init__(hidden_size, return_sequences)
        self.segment_length = segment_length
        self.embedding = nn.Linear(segment_length, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, num_layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        initialise(self.lstm, forget_bias, orthogonal)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: State | None = None) -> tuple[Tensor, State]:
        """Run over the windows x `[B, T, F]`, from `state`.

        Returns:
            The output (see `return_sequences`) and the state (h, c), each `[layers, B * F, H]`.

        Raises:
            ConfigError: the sequences have `lengths`.
        """
        if lengths is not None:
            raise ConfigError("a model of segments reads windows of one length", "type model=lstm")
        missing = -x.shape[1] % self.segment_length
        series = F.pad(x.transpose(1, 2), (missing, 0), mode="replicate")  # [B, F, T]
        segments = series.unflatten(2, (-1, self.segment_length)).flatten(0, 1)
        out, state = self.lstm(F.relu(self.embedding(segments)), state)
        out = self.dropout(out).unflatten(0, (len(x), -1)).transpose(1, 2)  # [B, segments, F, D]
        return self.chosen(out, None), state
