"""What the processes of a training tell each other: a few numbers, between main memories, without waiting for a GPU."""

from typing import Any

import torch
import torch.distributed as dist

_group: Any = None  # of gloo, where the training's own group is another


def most(*numbers: int) -> list[int]:
    """The largest of each number over all processes; they themselves where there is one process."""
    return _reduced(numbers, dist.ReduceOp.MAX)


def total(number: int) -> int:
    """The sum over all processes."""
    return _reduced((number,), dist.ReduceOp.SUM)[0]


def of_each(number: float) -> list[float]:
    """The number of every process, in the order of their ranks."""
    own = torch.zeros(dist.get_world_size(), dtype=torch.float64)
    own[dist.get_rank()] = number
    dist.all_reduce(own, group=_control())
    found: list[float] = own.tolist()
    return found


def _control() -> Any:
    global _group
    if _group is None and dist.get_backend() != "gloo":
        _group = dist.new_group(backend="gloo")
    return _group


def _reduced(numbers: tuple[int, ...], how: Any) -> list[int]:
    if not several():
        return list(numbers)
    values = torch.tensor(numbers, dtype=torch.int64)
    dist.all_reduce(values, how, group=_control())
    found: list[int] = values.tolist()
    return found


def several() -> bool:
    """Whether this process has others beside it now."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def leave() -> None:
    """End the connection, so that the next run of this process can make its own."""
    global _group
    _group = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
