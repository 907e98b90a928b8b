"""The data on the GPU."""

import torch
from torch import Tensor

from lstmopt.data.batch import Split
from lstmopt.loaders.resident import Resident


class Device(Resident):
    """Copy the arrays to the device of the training, once; batches are gathered there, and no step copies any data.

    The numbers of the samples are drawn on the host, 32 batches at a time. Without a GPU it is `resident`.
    """

    def __init__(self) -> None:
        self._moved: dict[int, tuple[Tensor, Tensor]] = {}  # by the original's id, which is kept alive here

    def place(self, split: Split, device: torch.device) -> Split:
        """The part on the device; what parts share is copied once."""
        if device.type == "cpu":
            return split
        arguments = split.arguments()
        return type(split)(**{name: self._move(value, device) for name, value in arguments.items()})

    def _move(self, value: object, device: torch.device) -> object:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._moved:
            self._moved[id(value)] = (value, value.to(device))
        return self._moved[id(value)][1]
