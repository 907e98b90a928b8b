"""What optimizers that use curvature have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lstmopt.errors import ConfigError


class SecondOrder(Optimizer):
    """An optimizer that needs more of the graph than its gradient.

    Its user runs the model inside `optimizer.forward()`, and calls `optimizer.backward` where others call
    `loss.backward()`. With `criterion` a mean over n labels and `draw` labels drawn from the predicted distribution:

        def closure():
            optimizer.zero_grad()
            with optimizer.forward():
                outputs = model(x)
            loss = criterion(outputs, y)

            def sampled():
                return criterion(outputs, draw(outputs)) * n**0.5

            optimizer.backward(loss, outputs, sampled, lambda: criterion(model(x), y))
            return loss

        optimizer.step(closure)

    after `optimizer.watch(model)`. `LSTMModule` does so; another LightningModule does the first in its `training_step`,
    the second in its hook `backward`, and `watch` in `configure_optimizers`, where it also keeps the optimizer for the
    two (`self.optimizers()` is a copy that Lightning makes). A step for which gradients are missing (a callback has
    thrown out gradients that were not finite) changes nothing.
    """

    def watch(self, model: nn.Module) -> None:
        """Tell the optimizer which model the parameters belong to, once, before the first step.

        Raises:
            ConfigError: several processes train together: their products would differ, and so would their weights.
        """
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if distributed and torch.distributed.get_world_size() > 1:
            raise ConfigError(f"{type(self).__name__} trains in one process only", "type trainer.devices=1")

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Surrounds the run of the model that `backward` will differentiate."""
        yield

    def backward(
        self, loss: Tensor, outputs: Tensor, sampled: Callable[[], Tensor], again: Callable[[], Tensor]
    ) -> None:
        """Fill `grad` of all parameters, and keep what the step needs of the curvature.

        Args:
            loss: the scalar to minimise, a mean over n labels.
            outputs: the model's predictions that `loss` was computed from.
            sampled: gives the loss of the same outputs on labels drawn from the distribution that they predict,
                times the square root of n: the covariance of its gradient is then the Fisher information of `loss`.
            again: evaluates `loss` anew with the weights of that moment; called without gradients, and with the
                random numbers (dropout) that there were in `forward()`.
        """
        raise NotImplementedError

    def trained(self) -> list[Tensor]:
        """All parameters that are not frozen."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]
