"""What a task is: the way into the LSTM, the way out of it, its loss, metrics, baselines and picture."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from lstmopt.data.batch import Batch, DataSpec, Split
from lstmopt.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Predict = Callable[[Batch], Tensor]
Context = Any
Metrics = dict[str, Metric] | MetricCollection

# labels that decide for a task: what they are, and what they would have to be
ARRAYS = {
    "forecasting": ("floats, which are forecast", "floats to forecast"),
    "classification": ("whole numbers [N], which are classes", "integers [N] for classes"),
    "tagging": ("whole numbers [N, T], which are a class at each step", "integers [N, T] for a class at each step"),
}


def mean_metric() -> MeanMetric:
    """A weighted mean that is NaN where a value is; torchmetrics' own leaves such values out."""
    return MeanMetric(nan_strategy=math.nan)  # "disable" would forget the weights


class Task(nn.Module):
    """Everything about a task that is not the LSTM. A task option is a subclass.

    Attributes:
        name: the word in the config and in `DataSpec.task`.
        per_step: an output at every step is needed; otherwise one per sequence.
        pooling: where there is one output per sequence, `last` takes the last valid step's, `mean` the mean of all.
        sees_future: the label at a step is a later input, so a bidirectional model would read it.
        baseline: the name of the prior as a baseline.
        primary: the metric that a result is compared with its baseline by.
        higher_is_better: direction of `primary`.
        input_size: features per step that the LSTM receives.
    """

    name: str
    per_step = False
    pooling = "last"
    sees_future = False
    primary: str
    baseline: str
    higher_is_better = False

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if spec.task != self.name:
            problem, hint = f"task={self.name} does not fit data made for {spec.task}", f"type task={spec.task}"
            if self.name in ARRAYS and decided_by_labels(spec):
                problem += f": y holds {ARRAYS[spec.task][0]}"
                hint += f", or save y as {ARRAYS[self.name][1]}"
            raise ConfigError(problem, hint)
        self.spec = spec
        self.input_size = spec.input_size
        self.head: nn.Module

    def make_head(self, width: int, per_channel: bool = False) -> None:
        """Make the layer that turns LSTM outputs of `width` features into predictions.

        Args:
            width: features of an LSTM output.
            per_channel: the model reads each input channel by itself and gives `[B, F, width]`.

        Raises:
            ConfigError: the task cannot use outputs per channel.
        """
        if per_channel:
            raise ConfigError(
                f"the model reads each series by itself, and task={self.name} has none", "type model=lstm"
            )
        self.head = nn.Linear(width, self.spec.output_size)

    def encode(self, batch: Batch) -> tuple[Tensor, Context]:
        """The LSTM's input `[B, T, input_size]`, and what `decode` needs to know of the batch."""
        return batch.x, None

    def decode(self, hidden: Tensor, context: Context) -> Tensor:
        """Predictions from LSTM outputs `[B, D]`, or `[B, T, D]` where `per_step`."""
        return self.head(hidden)

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """The scalar to minimise, a mean over labels."""
        raise NotImplementedError

    def labels(self, batch: Batch) -> int:
        """How many labels `loss` is the mean over."""
        return batch.y.numel()

    def sample(self, out: Tensor, batch: Batch) -> Tensor:
        """Labels like `batch.y`, drawn from the distribution that `out` predicts (for the Fisher information)."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Metric]:
        """New metrics by name; `loss` is there always, and NaN where a batch's is."""
        return {"loss": mean_metric()}

    def update(self, metrics: Metrics, out: Tensor, batch: Batch) -> None:
        """Add one batch to all metrics."""
        raise NotImplementedError

    def prior(self, train: Split) -> Tensor | None:
        """Logits `[K]` of the training frequencies, for tasks with discrete labels."""
        return None

    @torch.no_grad()
    def start_at_prior(self, train: Split) -> None:
        """Set the head's bias to the prior, so that training begins at the baseline and not at a coin's toss."""
        prior = self.prior(train)
        if prior is not None and isinstance(self.head, nn.Linear):
            self.head.bias.copy_(prior)

    def baselines(self, train: Split) -> dict[str, Predict]:
        """Simple predictors by name, fitted on the training part; they give what `decode` gives.

        Where there is a prior, it is the one baseline, under the name `baseline`.
        """
        prior = self.prior(train)
        assert prior is not None
        return {self.baseline: lambda batch: prior.to(batch.x.device).expand(*batch.y.shape[: 1 + self.per_step], -1)}

    def picture(self, predict: Predict, part: Split) -> "Figure":
        """What a person would want to see of the predictions on a part of the data."""
        raise NotImplementedError


def decided_by_labels(spec: DataSpec) -> bool:
    """Whether plain arrays may be behind it: the type and shape of their labels are all that tells the task."""
    return spec.task in ARRAYS and not spec.class_names and not spec.input_length


def valid_steps(batch: Batch, steps: int) -> Tensor:
    """Mask `[B, T]` of the steps that exist; all True without lengths."""
    batch_size = len(batch.x)
    if batch.lengths is None:
        return torch.ones(batch_size, steps, dtype=torch.bool, device=batch.x.device)
    return torch.arange(steps, device=batch.x.device) < batch.lengths.to(batch.x.device)[:, None]


def mean_of_steps(out: Tensor, batch: Batch) -> Tensor:
    """The mean over each sequence's valid steps, `[B, T, D]` to `[B, D]`."""
    if batch.lengths is None:
        return out.mean(dim=1)
    valid = valid_steps(batch, out.shape[1])[..., None]
    return torch.where(valid, out, 0.0).sum(dim=1) / valid.sum(dim=1)


def all_samples(part: Split, at_most: int = 2_000) -> Batch:
    """The first samples of a part as one batch."""
    return part.batch(torch.arange(min(len(part), at_most)))
