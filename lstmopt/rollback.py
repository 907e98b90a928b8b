"""A state of the training to go back to, and learning rates cut in half."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

RATES = ("lr", "initial_lr", "max_lr", "min_lr")  # in param_groups; one-cycle keeps its rates there
MOMENTA = ("momentum", "betas", "base_momentum", "max_momentum")  # and its momenta
BASES = ("base_lrs", "max_lrs", "eta_min", "_last_lr")  # in schedulers


def copied(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples that shares no tensor."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return type(value)(map(copied, value)) if type(value) in (list, tuple) else value


def take(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any] | None:
    """Copies of weights, buffers and optimizer states, as plain types and tensors; None where a weight is no number."""
    tensors = _tensors(module)
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        return None
    optimizers = [copied(optimizer.state_dict()) for optimizer in trainer.optimizers]
    return {"epoch": trainer.current_epoch, "tensors": copied(tensors), "optimizers": optimizers}


@torch.no_grad()
def put_back(trainer: pl.Trainer, module: pl.LightningModule, state: dict[str, Any]) -> None:
    """Make all of them what they were; rates and momenta stay where the schedules are now."""
    for name, tensor in _tensors(module).items():
        if name in state["tensors"]:  # a constant buffer may be younger than the checkpoint's release
            tensor.copy_(state["tensors"][name])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        groups = [
            old | {name: group[name] for name in RATES + MOMENTA if name in group}
            for old, group in zip(saved["param_groups"], optimizer.state_dict()["param_groups"], strict=True)
        ]
        optimizer.load_state_dict(copied({"state": saved["state"], "param_groups": groups}))


def halve_rates(trainer: pl.Trainer) -> None:
    """Half of every learning rate, now and in all that the schedules will set."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group.update({name: group[name] * 0.5 for name in RATES if name in group})
    for config in trainer.lr_scheduler_configs:
        scale_rates(config.scheduler, [0.5] * len(config.scheduler.optimizer.param_groups))


def scale_rates(scheduler: LRScheduler, factors: list[float]) -> None:
    """Multiply every rate that a schedule will set, by one factor for each group; a rate that all groups have in common
    stays where they differ."""
    for name in BASES:
        value = getattr(scheduler, name, None)
        if isinstance(value, list):
            setattr(scheduler, name, [rate * factor for rate, factor in zip(value, factors, strict=True)])
        elif value is not None and len(set(factors)) == 1:
            setattr(scheduler, name, value * factors[0])
    for part in getattr(scheduler, "_schedulers", []):  # torch's SequentialLR and ChainedScheduler
        scale_rates(part, factors)


def _tensors(module: pl.LightningModule) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
