"""What a loader hands to the model, and what a data set tells about itself."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Batch(NamedTuple):
    """One batch of sequences.

    Attributes:
        x: inputs `[B, T, F]` float32, or tokens `[B, T]` int64.
        y: targets: forecasting `[B, H, C]` float32; classification `[B]` int64; language modelling and
            tagging `[B, T]` int64 (-100 = no label); polyphonic `[B, T, K]` float32 of zeros and ones.
        lengths: number of valid steps `[B]` int64; None where every sequence has T steps.
        starts: the sequences begin here; false where they go on from the batch before.
    """

    x: Tensor
    y: Tensor
    lengths: Tensor | None = None
    starts: bool = True


class Split(Protocol):
    """One part (train, val or test) of a data set, held in memory and read by whole batches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """The samples `index` `[B]` int64 as one batch."""

    def arguments(self) -> dict[str, Any]:
        """What it was made from: its constructor's arguments, tensors and plain types."""


@dataclass(frozen=True)
class DataSpec:
    """Facts about a data set that the task and the model are built from; plain types only.

    Attributes:
        task: the task that the data fit (`forecasting`, `classification`, ...).
        input_size: features F per step, or the size of the vocabulary for tokens.
        output_size: forecasting: target channels C; classification and tagging: classes; language
            modelling: vocabulary; polyphonic: keys K.
        input_length: forecasting: steps T of every input; 0 where inputs do not hold the targets' past.
        horizon: forecasting: steps H to predict.
        season: steps per season for the seasonal naive baseline; 0 where inputs do not hold the targets' past.
        target_index: forecasting: columns of x that are the targets' past; empty where there are none.
        target_names: forecasting: names of the C targets.
        class_names: names of the classes, or the tokens of the vocabulary.
        mean, std: per target, to un-scale predictions; raw = standardised * std + mean.
        unit: unit of the raw targets, for pictures.
        separator: what stands between the tokens of a text.
        input_names: forecasting: names of the F inputs, where they are standardised.
        input_mean, input_std: per input, of what they are standardised by; model input = (raw - mean) / std.
    """

    task: str
    input_size: int
    output_size: int
    input_length: int = 0
    horizon: int = 1
    season: int = 1
    target_index: list[int] = field(default_factory=list)
    target_names: list[str] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    unit: str = ""
    separator: str = ""
    input_names: list[str] = field(default_factory=list)
    input_mean: list[float] = field(default_factory=list)
    input_std: list[float] = field(default_factory=list)
