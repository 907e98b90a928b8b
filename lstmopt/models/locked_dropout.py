"""Dropout with the same mask at every step."""

from torch import Tensor, nn

from lstmopt.errors import ConfigError


class LockedDropout(nn.Module):
    """Drop whole features of a sequence: one mask per sequence and feature, the same at all steps, in training.

    What is kept is divided by 1 - p, so that the expectation stays. A sequence cut into parts (truncated
    backpropagation) gets a mask per part.

    Args:
        p: probability that a feature is dropped, in [0, 1).

    Raises:
        ConfigError: p is out of range.

    Reference: Gal & Ghahramani 2016, A theoretically grounded application of dropout in recurrent neural networks.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"a dropout of {p} is out of range", "type a number in [0, 1)")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """X `[B, T, F]` with features dropped; unchanged in evaluation."""
        if not self.training or self.p == 0:
            return x
        mask = x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(1 - self.p)
        return x * (mask / (1 - self.p))

    def extra_repr(self) -> str:
        """Shown in a printed model."""
        return f"p={self.p}"
