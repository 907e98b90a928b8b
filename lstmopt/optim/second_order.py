"""What optimizers that use curvature have in common."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.optim import Optimizer


class SecondOrder(Optimizer):
    """An optimizer that needs more of the graph than its gradient.

    Its user calls `optimizer.backward(loss, outputs, sampled)` where others call `loss.backward()`:

        def closure():
            optimizer.zero_grad()
            outputs = model(x)
            loss = criterion(outputs, y)
            optimizer.backward(loss, outputs, lambda: criterion(outputs, draw(outputs)))
            return loss

        optimizer.step(closure)

    `LSTMModule` does so; another LightningModule overrides its hook `backward`.
    """

    def watch(self, model: nn.Module) -> None:
        """Tell the optimizer which model the parameters belong to, once, before the first step."""

    def backward(self, loss: Tensor, outputs: Tensor, sampled: Callable[[], Tensor]) -> None:
        """Fill `grad` of all parameters, and keep what the step needs of the curvature.

        Args:
            loss: the scalar to minimise.
            outputs: the model's predictions that `loss` was computed from.
            sampled: gives the loss of the same outputs on labels drawn from the distribution that they predict.
        """
        raise NotImplementedError
