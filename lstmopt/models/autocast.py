"""What autocast makes of a layer's input."""

import torch
from torch import Tensor


def computed_in(data: Tensor) -> torch.dtype:
    """The number format after autocast, which leaves float64 alone."""
    kind = data.device.type
    if data.dtype != torch.float64 and torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return data.dtype
