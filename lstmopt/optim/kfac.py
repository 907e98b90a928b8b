"""K-FAC for LSTMs."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import ParamsT

from lstmopt.errors import ConfigError
from lstmopt.optim.kronecker_factors import Rows, Run, factors, linear_rows, lstm_rows
from lstmopt.optim.second_order import SecondOrder


class Block:
    """One weight matrix [W_1, W_2, ..., b] with its Kronecker factors: a layer of an `nn.LSTM`, or an `nn.Linear`.

    Attributes:
        weights: parameters `[O, I_k]` that stand beside each other.
        biases: none, one, or two `[O]` that are added to each other; each then makes half of the sum's step.
    """

    def __init__(self, weights: list[Tensor], biases: list[Tensor]) -> None:
        self.weights, self.biases = weights, biases
        self.parameters = [*weights, *biases]

    def sizes(self) -> tuple[int, int]:
        """Rows of A and of G."""
        return sum(w.shape[1] for w in self.weights) + bool(self.biases), self.weights[0].shape[0]

    def join(self, tensors: list[Tensor]) -> Tensor:
        """Gradients of the parameters as one matrix; those of two biases are the same."""
        columns = tensors[: len(self.weights)]
        return torch.cat([*columns, tensors[-1][:, None]] if self.biases else columns, dim=1)

    def part(self, matrix: Tensor) -> list[Tensor]:
        """The step of each parameter."""
        columns = [w.shape[1] for w in self.weights] + [1] * bool(self.biases)
        parts = list(matrix.split(columns, dim=1))
        if self.biases:
            bias = parts.pop()[:, 0] / len(self.biases)
            parts += [bias] * len(self.biases)
        return parts


class KFAC(SecondOrder):
    """Steps along (A x G)^-1 g, with a Kronecker product A x G for the Fisher information of each layer.

    Every layer of each one-directional `nn.LSTM` is a block with the matrix [W_ih, W_hh, b], every `nn.Linear` one with
    [W, b]. A is the mean of a a^T over inputs a = [x_t, h_{t-1}, 1], G the sum of g g^T over gradients g of the gates
    (products), on labels drawn from the predictions; the steps in time are taken for independent. Every other parameter
    (embeddings, layer norms, tied weights, matrices of more than `max_size` rows or columns) is updated by Adam.

    With pi = sqrt((tr A / dim A) / (tr G / dim G)), A gets pi sqrt(damping) on its diagonal and G sqrt(damping) / pi.
    Weights that are dropped at random (parametrizations) are taken for what they would be without.

    Args:
        params: parameters, groups of them, or (name, parameter) pairs.
        lr: learning rate of the blocks; schedules scale Adam's in the same proportion.
        momentum: of the steps.
        damping: see above.
        kl_clip: lr^2 d F d, for a step d and the Fisher information F about twice the divergence that the step makes
            in the predictions, in nats: longer steps are shortened to it, all blocks together.
        factor_decay: decay of the running means of A and G.
        factor_every: steps from one look at A and G to the next.
        inverse_every: steps from one inversion to the next.
        max_size: largest A or G.
        weight_decay: decay of the weights, apart from the gradient; times the learning rate.
        adam_lr: Adam's learning rate.

    Raises:
        ConfigError: a bidirectional LSTM, one with projections, or packed sequences.

    Reference: Martens & Grosse 2015; Martens, Ba & Johnson 2018, Kronecker-factored curvature approximations for
    recurrent neural networks; `kl_clip`: Ba, Grosse & Martens 2017.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        momentum: float = 0.9,
        damping: float = 0.01,
        kl_clip: float = 0.001,
        factor_decay: float = 0.95,
        factor_every: int = 5,
        inverse_every: int = 10,
        max_size: int = 2048,
        weight_decay: float = 0.0,
        adam_lr: float = 0.001,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "damping": damping,
            "kl_clip": kl_clip,
            "factor_decay": factor_decay,
            "factor_every": factor_every,
            "inverse_every": inverse_every,
            "max_size": max_size,
            "weight_decay": weight_decay,
            "adam_lr": adam_lr,
            "steps": 0,
        }
        super().__init__(params, defaults)
        self._blocks: dict[nn.Module, list[Block]] = {}
        self._runs: list[tuple[nn.Module, Run | tuple[Tensor, Tensor]]] = []
        self._found: list[tuple[Block, Tensor, Tensor]] = []
        self._looking = False
        self._random = torch.empty(0)

    def watch(self, model: nn.Module) -> None:
        """Find the blocks, and have their modules tell what they read and give."""
        super().watch(model)
        trained = {id(p) for p in self.trained()}
        uses: dict[int, int] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                uses[id(parameter)] = uses.get(id(parameter), 0) + 1
        for module in model.modules():
            blocks = _blocks(module)
            fits = [max(block.sizes()) <= self.defaults["max_size"] for block in blocks]
            known = [id(p) in trained and uses[id(p)] == 1 for block in blocks for p in block.parameters]
            if blocks and all(fits) and all(known):
                self._blocks[module] = blocks
                self._listen(module)

    def _listen(self, module: nn.Module) -> None:
        me = weakref.ref(self)  # a model may outlive its optimizer

        def before(module: nn.Module, args: Any) -> None:
            optimizer = me()
            if optimizer is not None and optimizer._looking:
                optimizer._random = torch.get_rng_state()

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
            optimizer = me()
            if optimizer is not None and optimizer._looking:
                given = dict(zip(("input", "hx", "lengths"), args, strict=False)) | kwargs
                optimizer._remember(module, given, outputs)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after, with_kwargs=True)

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Remember what the blocks read and give, in steps that look at the factors."""
        self._runs = []
        self._looking = torch.is_grad_enabled() and self._due("factor_every")
        try:
            yield
        finally:
            self._looking = False

    def _remember(self, module: nn.Module, given: dict[str, Any], outputs: Any) -> None:
        x = given["input"]
        if not isinstance(module, nn.LSTM):
            self._runs.append((module, (x.detach(), outputs)))
        elif isinstance(x, Tensor) and x.dim() == 3:
            run = Run(x, given.get("hx"), (outputs[0], *outputs[1]), self._random, given.get("lengths"))
            self._runs.append((module, run))
        else:
            raise ConfigError("kfac needs batches of padded sequences, not packed ones", "type optimizer=adam")

    def backward(
        self, loss: Tensor, outputs: Tensor, sampled: Callable[[], Tensor], again: Callable[[], Tensor]
    ) -> None:
        """Add to `grad`, and look at the factors every `factor_every` steps; gradients may be accumulated."""
        runs, self._runs = self._runs, []
        loss.backward(retain_graph=bool(runs))
        if runs and bool(outputs.isfinite().all()):  # there are no labels to draw from NaN
            self._found += self._look(runs, sampled())

    def _look(self, runs: list[Any], sampled: Tensor) -> list[tuple[Block, Tensor, Tensor]]:
        """A and G of each block; a module that ran several times has the rows of all its runs."""
        given = [run.outputs if isinstance(run, Run) else run[1:] for _, run in runs]
        gradients = iter(torch.autograd.grad(sampled, [out for outs in given for out in outs], materialize_grads=True))
        rows: dict[Block, list[Rows]] = {}
        for module, run in runs:
            if isinstance(module, nn.LSTM):
                new = lstm_rows(module, run, (next(gradients), next(gradients), next(gradients)))
            else:
                new = [linear_rows(module, run[0], next(gradients))]
            for block, pair in zip(self._blocks[module], new, strict=True):
                rows.setdefault(block, []).append(pair)
        return [
            (block, *factors(torch.cat([i for i, _ in pairs]), torch.cat([g for _, g in pairs])))
            for block, pairs in rows.items()
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step from the gradients that `backward` has left, after calling it in `closure`.

        Raises:
            ConfigError: there are no factors, as `backward` was not called for a model that is watched.
        """
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        found, self._found = self._found, []
        groups = {p: group for group in self.param_groups for p in group["params"]}
        if all(p.grad is None for p in groups):
            return result
        for block, a, g in found:
            self._average(block, a, g, groups[block.weights[0]]["factor_decay"])
        blocks = [block for some in self._blocks.values() for block in some]
        blocks = [block for block in blocks if all(p.grad is not None for p in block.parameters)]
        moves = [self._solve(block, groups[block.weights[0]]) for block in blocks]
        self._step_blocks(blocks, moves, groups)
        solved = {p for block in blocks for p in block.parameters}
        for parameter, group in groups.items():
            if parameter.grad is not None and parameter not in solved:
                self._adam(parameter, group)
        for group in self.param_groups:
            group["steps"] += 1
        return result

    def _due(self, interval: str) -> bool:
        group = self.param_groups[0]
        return bool(group["steps"] % group[interval] == 0)

    def _average(self, block: Block, a: Tensor, g: Tensor, decay: float) -> None:
        """Running means; the first ones are plain means, so that they need no correction."""
        state = self.state[block.weights[0]]
        if not bool(a.isfinite().all() and g.isfinite().all()):
            return
        state["looks"] = state.get("looks", 0) + 1
        new = 1 - min(1 - 1 / state["looks"], decay)
        for name, value in (("A", a), ("G", g)):
            state[name] = state[name].lerp(value, new) if name in state else value

    def _solve(self, block: Block, group: dict[str, Any]) -> Tensor:
        """G^-1 V A^-1 for the gradient V of a block's matrix."""
        state = self.state[block.weights[0]]
        if "A" not in state:
            hint = "type optimizer.factor_every=1, or use optimizer.watch, forward and backward as SecondOrder says"
            raise ConfigError("kfac has seen no factors of a layer that has a gradient", hint)
        if "A_inverse" not in state or self._due("inverse_every"):
            a, g = state["A"].double(), state["G"].double()
            pi = (a.trace() / len(a) / (g.trace() / len(g)).clamp(min=1e-30)).sqrt().clamp(1e-6, 1e6)
            for name, factor, diagonal in (("A", a, pi), ("G", g, 1 / pi)):
                damped = factor + diagonal * group["damping"] ** 0.5 * torch.eye(len(factor)).to(factor)
                inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
                state[f"{name}_inverse"] = inverse.to(state[name].dtype)
        gradient = block.join([p.grad for p in block.parameters if p.grad is not None])
        return state["G_inverse"] @ gradient @ state["A_inverse"]

    def _step_blocks(self, blocks: list[Block], moves: list[Tensor], groups: dict[Tensor, dict[str, Any]]) -> None:
        """Clip all moves together, add them to the momentum, and step."""
        change = torch.zeros(())
        for block, move in zip(blocks, moves, strict=True):
            gradient = block.join([p.grad for p in block.parameters if p.grad is not None])
            change = change.to(move.device) + groups[block.weights[0]]["lr"] ** 2 * (move * gradient).sum()
        shorter = (self.param_groups[0]["kl_clip"] / change.clamp(min=1e-30)).sqrt().clamp(max=1.0)
        for block, move in zip(blocks, moves, strict=True):
            for parameter, part in zip(block.parameters, block.part(move * shorter), strict=True):
                group, state = groups[parameter], self.state[parameter]
                last = state.get("momentum", torch.zeros_like(part))
                state["momentum"] = last * group["momentum"] + part
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * state["momentum"])

    def _adam(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Kingma & Ba 2015, with betas 0.9 and 0.999, eps 1e-8."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        lr = group["adam_lr"] * group["lr"] / self.defaults["lr"]
        state["count"] = state.get("count", 0) + 1
        mean = state.setdefault("mean", torch.zeros_like(parameter)).lerp_(gradient, 0.1)
        square = state.setdefault("square", torch.zeros_like(parameter)).lerp_(gradient.square(), 0.001)
        scale = (square / (1 - 0.999 ** state["count"])).sqrt_().add_(1e-8)
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.addcdiv_(mean, scale, value=-lr / (1 - 0.9 ** state["count"]))


def _blocks(module: nn.Module) -> list[Block]:
    """The matrices of a module that are blocks; none if it is neither an `nn.LSTM` nor an `nn.Linear`."""
    if isinstance(module, nn.Linear):
        return [Block([_raw(module, "weight")], [] if module.bias is None else [_raw(module, "bias")])]
    if not isinstance(module, nn.LSTM):
        return []
    if module.bidirectional or module.proj_size:
        raise ConfigError("kfac knows one-directional LSTMs without projections", "type model=lstm or optimizer=adam")
    return [
        Block(
            [_raw(module, f"weight_ih_l{layer}"), _raw(module, f"weight_hh_l{layer}")],
            [_raw(module, f"bias_ih_l{layer}"), _raw(module, f"bias_hh_l{layer}")] if module.bias else [],
        )
        for layer in range(module.num_layers)
    ]


def _raw(module: nn.Module, name: str) -> Tensor:
    """A parameter, also one that a parametrization stands before."""
    parametrized = getattr(module, "parametrizations", {})
    return parametrized[name].original if name in parametrized else getattr(module, name)
