"""Which parameters a weight decay is for."""

from typing import Any

from torch import nn


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Two parameter groups: matrices, and biases and gains, whose weight decay is 0.

    A bias that decays forgets its level and cannot overfit (Goodfellow et al. 2016, Deep Learning, 7.1).
    """
    named = list(module.named_parameters())
    return [
        {"params": [(name, p) for name, p in named if p.ndim >= 2]},
        {"params": [(name, p) for name, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
