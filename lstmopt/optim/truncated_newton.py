"""What natural gradient and Newton-CG share: damped conjugate gradients and the test of the step they give."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import grad
from torch.optim.optimizer import ParamsT

from lstmopt.errors import ConfigError
from lstmopt.optim.conjugate_gradients import conjugate_gradients
from lstmopt.optim.products import Product, flat, split
from lstmopt.optim.second_order import SecondOrder


class TruncatedNewton(SecondOrder):
    """Minimise the model m(d) = g d + d C d / 2 of the loss by conjugate gradients, step by `lr` d, look, adapt.

    C is a curvature matrix B, which a subclass gives by its products, plus `damping` times I. The loss is evaluated
    again, on the same batch and with the same dropout, after the step: a step that raises it, or makes it other than
    finite, is taken back. The ratio of its reduction to the one that the model without damping foretold adapts the
    damping (Levenberg-Marquardt): above 3/4 it is multiplied by `damping_decay`, below 1/4 divided by it. The last
    solution times `warm_start` is where the next conjugate gradients begin; after a rejected step they begin at 0.

    Conjugate gradients are preconditioned by the root of the running mean of squared gradients. The adapted damping
    is in `param_groups`, one for all groups. A gradient that is not finite changes nothing.

    Attributes:
        twice_differentiable: the gradient itself has to be differentiated for the products.

    Reference: Martens 2010, Deep learning via Hessian-free optimization.
    """

    twice_differentiable = False

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        damping: float,
        min_damping: float,
        damping_decay: float,
        cg_iterations: int,
        cg_tolerance: float,
        warm_start: float,
    ) -> None:
        defaults = {
            "lr": lr,
            "damping": damping,
            "min_damping": min_damping,
            "damping_decay": damping_decay,
            "cg_iterations": cg_iterations,
            "cg_tolerance": cg_tolerance,
            "warm_start": warm_start,
        }
        super().__init__(params, defaults)
        self._kept: tuple[Tensor, Product, Callable[[], Tensor]] | None = None
        self._random: list[Tensor] = []

    def curvature(self, loss: Tensor, outputs: Tensor, gradient: tuple[Tensor, ...]) -> Product:
        """v to B v, for the trained parameters as one vector."""
        raise NotImplementedError

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Remember the random state, and run on torch's own LSTM kernels.

        cuDNN's has no double backward, and oneDNN's is slower here than that of the plain operations.
        """
        self._random = _random_state(self.trained()[0].device)
        onednn = torch.backends.mkldnn.enabled
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
        try:
            with torch.backends.cudnn.flags(enabled=False):
                yield
        finally:
            torch.backends.mkldnn.enabled = onednn

    def backward(
        self, loss: Tensor, outputs: Tensor, sampled: Callable[[], Tensor], again: Callable[[], Tensor]
    ) -> None:
        """Fill `grad`, and keep the graph for the products.

        Raises:
            ConfigError: it is called twice without a step in between.
        """
        if self._kept is not None:
            raise ConfigError(
                f"{type(self).__name__} cannot accumulate gradients", "type trainer.accumulate_grad_batches=1"
            )
        parameters = self.trained()
        gradient = grad(
            loss, parameters, retain_graph=True, create_graph=self.twice_differentiable, materialize_grads=True
        )
        for parameter, value in zip(parameters, gradient, strict=True):
            parameter.grad = value.detach().clone()
        self._kept = loss.detach(), self.curvature(loss, outputs, gradient), again

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step from the gradients that `backward` has left, after calling it in `closure`."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        kept, self._kept = self._kept, None
        parameters = self.trained()
        if kept is None or any(parameter.grad is None for parameter in parameters):
            return result
        loss, product, again = kept
        gradient = flat([p.grad for p in parameters if p.grad is not None])
        if not bool(gradient.isfinite().all()):
            return result
        group = self.param_groups[0]
        damping = group["damping"]
        solution = conjugate_gradients(
            lambda v: product(v) + damping * v,
            -gradient,
            self._last(parameters) * group["warm_start"],
            self._preconditioner(parameters),
            group["cg_iterations"],
            group["cg_tolerance"],
        )
        self._take(parameters, gradient, solution.x, solution.image - damping * solution.x, product, loss, again)
        return result

    def _take(
        self,
        parameters: list[Tensor],
        gradient: Tensor,
        direction: Tensor,
        curved: Tensor,
        product: Product,
        loss: Tensor,
        again: Callable[[], Tensor],
    ) -> None:
        """Make the step, or take it back, and adapt the damping; `curved` is B times the direction."""
        before = [parameter.clone() for parameter in parameters]
        rates = {p: group["lr"] for group in self.param_groups for p in group["params"]}
        step = [rates[p] * d for p, d in zip(parameters, split(direction, parameters), strict=True)]
        alike = len({rates[p] for p in parameters}) == 1
        bent = rates[parameters[0]] * curved if alike else product(flat(step))
        for parameter, move in zip(parameters, step, strict=True):
            parameter.add_(move)
        foretold = gradient @ flat(step) + flat(step) @ bent / 2
        change = self._evaluate(again) - loss
        accepted = bool(change <= 0)
        if not accepted:  # also where it is not a number
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        for parameter, part in zip(parameters, split(direction, parameters), strict=True):
            self.state[parameter]["direction"] = part.clone() if accepted else torch.zeros_like(part)
        ratio = float(change / foretold) if accepted and foretold < 0 else 0.0
        for group in self.param_groups:
            if ratio > 0.75:
                group["damping"] = max(group["damping"] * group["damping_decay"], group["min_damping"])
            elif ratio < 0.25:
                group["damping"] /= group["damping_decay"]

    def _preconditioner(self, parameters: list[Tensor]) -> Tensor:
        """Root of the running mean of squared gradients `[n]` (as Adam's), and a hundredth of their mean."""
        for parameter in parameters:
            assert parameter.grad is not None
            state, square = self.state[parameter], parameter.grad**2
            state["looks"] = state.get("looks", 0) + 1
            new = 1 - min(1 - 1 / state["looks"], 0.99)
            state["square"] = state["square"].lerp(square, new) if "square" in state else square
        root = flat([self.state[parameter]["square"] for parameter in parameters]).sqrt()
        return root + 0.01 * root.mean()

    def _last(self, parameters: list[Tensor]) -> Tensor:
        return flat([self.state[p].get("direction", torch.zeros_like(p)) for p in parameters])

    def _evaluate(self, again: Callable[[], Tensor]) -> Tensor:
        """The loss with the random numbers of the last `forward()`; the generators are left as they are."""
        device = self.trained()[0].device
        now = _random_state(device)
        try:
            _set_random_state(device, self._random)
            with self.forward():
                return again().detach()
        finally:
            _set_random_state(device, now)


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
