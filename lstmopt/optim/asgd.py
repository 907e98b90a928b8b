"""SGD with an average of the weights."""

import torch


class ASGD(torch.optim.ASGD):
    """torch's SGD with an average of the weights that is evaluated and saved: of all weights from step `t0` on.

    `eval()` changes the weights for their average, `train()` changes them back, to the bit; the callback `ScheduleFree`
    calls both. Which of the two is in place is part of `param_groups`. Up to step `t0` the average is the weights
    themselves. `lambd` decays all parameters, biases too.

    Reference: Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging.
    """

    def train(self) -> None:
        """Put the weights that are trained in place."""
        self._place(average=False)

    def eval(self) -> None:
        """Put their average in place."""
        self._place(average=True)

    @torch.no_grad()
    def _place(self, average: bool) -> None:
        for group in self.param_groups:
            if group.get("average", False) != average:
                for parameter in group["params"]:
                    if "ax" in self.state.get(parameter, {}):
                        kept = self.state[parameter]["ax"]
                        weight = parameter.clone()
                        parameter.copy_(kept)
                        kept.copy_(weight)
                group["average"] = average
