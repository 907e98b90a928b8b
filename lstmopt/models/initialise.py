"""Initial weights that are not torch's."""

import torch
from torch import nn


@torch.no_grad()
def initialise(layer: nn.Module, forget_bias: float | None, orthogonal: bool) -> None:
    """Change the initial weights of an LSTM whose parameters are named as `nn.LSTM` names them, in place.

    Args:
        layer: holds `weight_hh...` `[4 H, H]` and `bias...` `[4 H]`, gates in the order i, f, g, o.
        forget_bias: bias of the forget gate, all its parts together; None keeps torch's.
        orthogonal: orthogonal recurrent matrices, gate by gate.

    Reference: forget bias of 1: Jozefowicz et al. 2015; orthogonal matrices: Saxe et al. 2014.
    """
    for name, parameter in layer.named_parameters():
        if orthogonal and name.startswith("weight_hh"):
            for gate in parameter.chunk(4):
                nn.init.orthogonal_(gate)
        if forget_bias is not None and name.startswith("bias"):
            hidden = len(parameter) // 4
            parameter[hidden : 2 * hidden] = 0.0 if name.startswith("bias_hh") else forget_bias
