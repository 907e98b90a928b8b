"""Newton's method."""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from lstmopt.optim.products import Product, hessian
from lstmopt.optim.truncated_newton import TruncatedNewton


class NewtonCG(TruncatedNewton):
    """Steps along H^-1 g, with H the Hessian of the loss, by damped conjugate gradients on products with H.

    H is not positive definite far from a minimum. Conjugate gradients stop at a direction of negative curvature, with
    what they have found so far or with steepest descent, and the damping rises when such steps are bad.

    Args:
        params: parameters, groups of them, or (name, parameter) pairs.
        lr: part of the solution that is stepped by; 1, the whole of it, fits each batch too well unless it holds all
            data. Schedules scale the step.
        damping: what is added to the diagonal of H at the start; adapted from step to step.
        min_damping: it does not fall below this.
        damping_decay: factor by which it falls after a step as good as foretold, and its inverse that by which it
            rises after a bad one.
        cg_iterations: products with H per step, at most, and one more for the warm start.
        cg_tolerance: residual, as a part of the gradient's norm, that is good enough.
        warm_start: part of the last solution that conjugate gradients begin with; it is what lets few products do.

    Reference: Nocedal & Wright 2006, Numerical optimization, chapter 7; Martens 2010.
    """

    twice_differentiable = True

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.8,
        damping: float = 0.01,
        min_damping: float = 1e-6,
        damping_decay: float = 0.9,
        cg_iterations: int = 2,
        cg_tolerance: float = 1e-3,
        warm_start: float = 0.9,
    ) -> None:
        super().__init__(params, lr, damping, min_damping, damping_decay, cg_iterations, cg_tolerance, warm_start)

    def curvature(self, loss: Tensor, outputs: Tensor, gradient: tuple[Tensor, ...]) -> Product:
        """v to H v."""
        return hessian(gradient, self.trained())
