"""Products of curvature matrices with vectors, the matrices never made."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import grad

Product = Callable[[Tensor], Tensor]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All entries as one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def split(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector as tensors of the shapes of `like`."""
    parts = vector.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]


def gauss_newton(loss: Tensor, outputs: Tensor, parameters: Sequence[Tensor]) -> Product:
    """v to J^T H J v, with J the Jacobian of the outputs and H the Hessian of the loss in the outputs.

    J v is the derivative of J^T u in u, which is linear, so it needs no forward-mode differentiation (the double
    backward trick). For squared errors, cross-entropy and Bernoulli keys this matrix is the Fisher information.

    Reference: Schraudolph 2002; Martens 2020, New insights and perspectives on the natural gradient method.
    """
    (slope,) = grad(loss, outputs, create_graph=True)
    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = grad(outputs, parameters, u, create_graph=True, materialize_grads=True)

    def product(v: Tensor) -> Tensor:
        (pushed,) = grad(pulled, u, split(v, parameters), retain_graph=True, materialize_grads=True)
        (bent,) = grad(slope, outputs, pushed, retain_graph=True, materialize_grads=True)
        return flat(grad(outputs, parameters, bent, retain_graph=True, materialize_grads=True))

    return product


def hessian(gradient: Sequence[Tensor], parameters: Sequence[Tensor]) -> Product:
    """v to H v, with H the Hessian of the loss whose gradient was made with `create_graph=True`.

    Reference: Pearlmutter 1994, Fast exact multiplication by the Hessian.
    """

    def product(v: Tensor) -> Tensor:
        return flat(grad(gradient, parameters, split(v, gradient), retain_graph=True, materialize_grads=True))

    return product
