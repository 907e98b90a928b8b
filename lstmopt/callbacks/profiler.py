"""The profilers by their names."""

from typing import Any

import pytorch_lightning as pl

from lstmopt.callbacks.bottleneck import Bottleneck
from lstmopt.callbacks.memory_profile import MemoryProfile
from lstmopt.callbacks.nsight import Nsight
from lstmopt.callbacks.pytorch_profile import PyTorchProfile
from lstmopt.callbacks.simple_profile import SimpleProfile
from lstmopt.errors import ConfigError

KINDS: dict[str, type[pl.Callback]] = {
    "simple": SimpleProfile,
    "pytorch": PyTorchProfile,
    "memory": MemoryProfile,
    "bottleneck": Bottleneck,
    "nsight": Nsight,
}


class Profiler(pl.Callback):
    """`Profiler("pytorch")` is a `PyTorchProfile`, and so on: the words of `profiler=` on the command line.

    Args:
        kind: `simple`, `pytorch`, `memory`, `bottleneck` or `nsight`.
        options: of the profiler of that kind.

    Raises:
        ConfigError: there is no such kind.
    """

    def __new__(cls, kind: str = "pytorch", **options: Any) -> pl.Callback:  # type: ignore[misc]
        """The callback of that kind, which is no `Profiler` itself."""
        if kind not in KINDS:
            raise ConfigError(f"profiler kind={kind} is not known", f"type one of {', '.join(KINDS)}")
        return KINDS[kind](**options)
