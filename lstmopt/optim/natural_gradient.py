"""The natural gradient."""

from torch import Tensor
from torch.optim.optimizer import ParamsT

from lstmopt.optim.products import Product, gauss_newton
from lstmopt.optim.truncated_newton import TruncatedNewton


class NaturalGradient(TruncatedNewton):
    """Steps along F^-1 g, with F the Fisher information, by damped conjugate gradients on products with F.

    F is the Gauss-Newton matrix J^T H J, which is the Fisher information of squared errors, cross-entropy and Bernoulli
    keys; H is the Hessian of the loss in the predictions, J their Jacobian. No matrix is ever made. For an absolute
    error H is 0, and the steps are those of gradient descent.

    Args:
        params: parameters, groups of them, or (name, parameter) pairs.
        lr: part of the solution that is stepped by; 1, the whole of it, fits each batch too well unless it holds all
            data. Schedules scale the step.
        damping: what is added to the diagonal of F at the start; adapted from step to step.
        min_damping: it does not fall below this.
        damping_decay: factor by which it falls after a step as good as foretold, and its inverse that by which it
            rises after a bad one.
        cg_iterations: products with F per step, at most, and one more for the warm start.
        cg_tolerance: residual, as a part of the gradient's norm, that is good enough.
        warm_start: part of the last solution that conjugate gradients begin with; it is what lets few products do.

    Reference: Amari 1998, Natural gradient works efficiently in learning; Martens 2010, 2020.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.5,
        damping: float = 0.01,
        min_damping: float = 1e-6,
        damping_decay: float = 0.9,
        cg_iterations: int = 2,
        cg_tolerance: float = 1e-3,
        warm_start: float = 0.9,
    ) -> None:
        super().__init__(params, lr, damping, min_damping, damping_decay, cg_iterations, cg_tolerance, warm_start)

    def curvature(self, loss: Tensor, outputs: Tensor, gradient: tuple[Tensor, ...]) -> Product:
        """v to F v."""
        return gauss_newton(loss, outputs, self.trained())
