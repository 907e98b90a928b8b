"""Dropout on recurrent weights that keeps the fused kernel."""

import weakref
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from lstmopt.errors import ConfigError


class WeightDrop(nn.Module):
    """A parametrization that drops entries of a weight in training: `drop_weight` puts it on an LSTM.

    What is kept is divided by 1 - p. The gradient reaches the raw weight, and is zero where an entry was dropped; in
    evaluation the weight is the raw one. Each reading of the weight draws a mask, and `nn.LSTM` reads its weights
    several times per call: inside `torch.nn.utils.parametrize.cached()` one mask is drawn.

    Args:
        p: probability that an entry is dropped, in [0, 1).

    Raises:
        ConfigError: p is out of range.

    Reference: Wan et al. 2013, DropConnect; Merity et al. 2018 for recurrent weights.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(f"a weight dropout of {p} is out of range", "type a number in [0, 1)")
        self.p = p

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with entries dropped; itself in evaluation."""
        return F.dropout(weight, self.p, self.training)

    def extra_repr(self) -> str:
        """Shown in a printed model."""
        return f"p={self.p}"


def drop_weight(lstm: nn.LSTM, p: float, name: str = "weight_hh_l0") -> None:
    """Drop entries of one weight of an LSTM in training, in place."""
    parametrize.register_parametrization(lstm, name, WeightDrop(p))
    lstm.register_forward_hook(_let_go)


def _let_go(lstm: nn.Module, *_: Any) -> None:
    """Put raw weights in the place of the masked ones that nn.LSTM keeps after a call.

    They would keep the graph of that call alive, and a copy of the module (averaged weights) would be refused. The next
    call sees that its weights have changed and reads them anew.
    """
    assert isinstance(lstm, nn.LSTM) and isinstance(lstm.parametrizations, nn.ModuleDict)
    for name, parametrization in lstm.parametrizations.items():
        place, raw = lstm._flat_weights_names.index(name), parametrization.original
        assert isinstance(raw, nn.Parameter)
        lstm._flat_weights[place], lstm._flat_weight_refs[place] = raw, weakref.ref(raw)
