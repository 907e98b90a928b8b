"""Muon on the LSTM's matrices and AdamW on everything else."""

from collections.abc import Iterable
from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import Tensor


class Muon(pytorch_optimizer.Muon):
    """Momentum whose matrices are made orthogonal (Newton-Schulz), and AdamW for what is no hidden matrix.

    Hidden matrices are those that nn.LSTM names `weight_ih`, `weight_hh` and `weight_hr`; parameters without names
    are told apart by their dimensions. Embeddings, heads and biases get AdamW, as the author of Muon advises.

    Args:
        params: parameters, (name, parameter) pairs, or groups of them.
        lr: learning rate of the hidden matrices; a group's own `lr` counts for both kinds.
        adamw_lr: learning rate of the rest.
        momentum: of the hidden matrices.
        nesterov: look ahead along the momentum.
        ns_steps: Newton-Schulz iterations.
        weight_decay: decoupled, of all matrices; biases are left alone.
        adamw_betas: decay of AdamW's running means.
        adamw_eps: added to AdamW's denominator.

    Reference: Jordan et al. 2024, Muon: an optimizer for hidden layers.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        adamw_lr: float = 3e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        adamw_betas: tuple[float, float] = (0.9, 0.95),
        adamw_eps: float = 1e-8,
    ) -> None:
        given = list(params)
        groups = given if given and isinstance(given[0], dict) else [{"params": given}]
        parts = []
        for group in groups:
            inside = group["params"]
            inside = [inside] if isinstance(inside, Tensor) else list(inside)  # an iterator can be read once only
            for kind in (_is_hidden, _is_other_matrix, _is_vector):
                part = {**group, "params": [p for p in inside if kind(p)], "use_muon": kind is _is_hidden}
                if kind is _is_vector:
                    part["weight_decay"] = 0.0
                if part["params"]:
                    parts.append(part)
        super().__init__(
            parts,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adamw_lr=adamw_lr,
            adamw_betas=adamw_betas,
            adamw_wd=weight_decay,
            adamw_eps=adamw_eps,
        )

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        """In float32 on a CPU: without arithmetic in bfloat16 a product takes dozens of times as long there."""
        if updates[0].device.type != "cpu":
            return pytorch_optimizer.Muon._orthogonalize(group, updates)
        steps, weights = group["ns_steps"], group["ns_coeffs"]
        return [
            zero_power_via_newton_schulz_5(update, num_steps=steps, weights=weights, dtype=torch.float32)
            for update in updates
        ]


def _tensor(parameter: Any) -> Tensor:
    return parameter[1] if isinstance(parameter, tuple) else parameter


def _is_vector(parameter: Any) -> bool:
    return _tensor(parameter).ndim < 2


def _is_hidden(parameter: Any) -> bool:
    name = parameter[0] if isinstance(parameter, tuple) else "weight_hh"
    return not _is_vector(parameter) and any(kind in name for kind in ("weight_ih", "weight_hh", "weight_hr"))


def _is_other_matrix(parameter: Any) -> bool:
    return not _is_vector(parameter) and not _is_hidden(parameter)
