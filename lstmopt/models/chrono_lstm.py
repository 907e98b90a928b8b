"""The LSTM whose gates begin with the memory that the data need."""

import torch

from lstmopt.models.lstm import LSTM


class ChronoLSTM(LSTM):
    """`LSTM` whose units begin with memories of up to `longest` steps, `[B, T, F]`.

        b_f = log(u),   b_i = -b_f,   u ~ uniform(1, longest - 1), anew for each unit

    With a forget gate of bias log(u) a cell falls to 1/e in about u steps; with torch's biases, which are close to 0,
    to a half in every step, and so does the gradient that could change that. What is computed is that of `LSTM`.

    Args:
        input_size: features F per step.
        hidden_size: units H per layer and direction.
        num_layers: stacked layers.
        dropout: probability of dropping a unit between layers.
        bidirectional: a second LSTM reads the sequence from its end.
        longest: steps of the longest dependency that is expected, 3 at least; the length of the sequences, at most.
        return_sequences: as for `LSTM`.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Reference: Tallec & Ollivier 2018, Can recurrent neural networks warp time?
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        longest: int = 100,
        return_sequences: bool | None = None,
        orthogonal: bool = False,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            dropout,
            bidirectional,
            return_sequences=return_sequences,
            orthogonal=orthogonal,
        )
        with torch.no_grad():
            for name, bias in self.lstm.named_parameters():
                if name.startswith("bias"):
                    memory = torch.empty(hidden_size).uniform_(1, longest - 1).log_()
                    gates = bias.view(4, hidden_size)
                    gates[:2] = torch.stack((-memory, memory)) if name.startswith("bias_ih") else 0.0
