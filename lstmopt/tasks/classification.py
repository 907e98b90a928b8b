"""Classification: one label per sequence."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lstmopt.data.batch import Batch, DataSpec, Split
from lstmopt.tasks.task import Metrics, Predict, Task, all_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORE = -100
LEGIBLE = 30  # classes whose numbers and names there is room for in the picture


class Classification(Task):
    """Logits `[B, K]` from the last valid LSTM output, or from the mean of all; cross-entropy in nats.

    Args:
        spec: facts about the data.
        pooling: `last` or `mean`; the mean shortens the way of the gradient to early steps.
    """

    name = "classification"
    primary = "accuracy"
    baseline = "majority_class"
    higher_is_better = True

    def __init__(self, spec: DataSpec, pooling: Literal["last", "mean"] = "last") -> None:
        super().__init__(spec)
        self.pooling = pooling

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy; labels of -100 do not count."""
        total = F.cross_entropy(out.flatten(0, -2), batch.y.flatten(), ignore_index=IGNORE, reduction="sum")
        return total / (batch.y != IGNORE).sum().clamp(min=1)

    def labels(self, batch: Batch) -> int:
        """How many labels there are."""
        return int((self.labelled(batch).y != IGNORE).sum())

    def sample(self, out: Tensor, batch: Batch) -> Tensor:
        """Classes like `batch.y`; a loss ignores those where it ignores a label."""
        drawn = torch.multinomial(out.flatten(0, -2).float().softmax(-1), 1).view_as(batch.y)
        return torch.where(batch.y == IGNORE, batch.y, drawn)

    def metrics(self) -> dict[str, Metric]:
        """`accuracy` over labels, `f1` averaged over classes."""
        classes = self.spec.output_size
        return super().metrics() | {
            "accuracy": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE, validate_args=False),
            "f1": MulticlassF1Score(classes, average="macro", ignore_index=IGNORE, validate_args=False),
        }

    def update(self, metrics: Metrics, out: Tensor, batch: Batch) -> None:
        """Add one batch."""
        labels, classes = batch.y.flatten(), out.flatten(0, -2).float()
        metrics["loss"].update(self.loss(out.float(), batch), (labels != IGNORE).sum())
        for name in ("accuracy", "f1"):
            metrics[name].update(classes.argmax(-1), labels)

    def prior(self, train: Split) -> Tensor:
        """The log frequencies of the classes; their maximum is the majority class."""
        labels = self.labelled(all_samples(train, len(train))).y.flatten()
        counts = torch.bincount(labels[labels != IGNORE], minlength=self.spec.output_size) + 1e-6
        return (counts / counts.sum()).log()

    def labelled(self, batch: Batch) -> Batch:
        """The batch with -100 for each label that does not exist."""
        return batch

    def picture(self, predict: Predict, part: Split) -> "Figure":
        """The confusion matrix over the part's first 2,000 sequences, rows = truth; with counts up to 30 classes."""
        from matplotlib.figure import Figure

        batch = all_samples(part)
        truth, predicted = batch.y.flatten(), predict(batch).argmax(-1).cpu().flatten()
        seen = truth != IGNORE
        classes = self.spec.output_size
        counts = torch.bincount(truth[seen] * classes + predicted[seen], minlength=classes**2).view(classes, classes)
        share = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        figure = Figure(figsize=(6.5, 6), layout="constrained")
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for row in range(classes if classes <= LEGIBLE else 0):
            for column in range(classes):
                color = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=color)
        names = self.spec.class_names or [str(k) for k in range(classes)]
        every = -(-classes // LEGIBLE)
        axes.set_xticks(range(0, classes, every), names[::every], rotation=45)
        axes.set_yticks(range(0, classes, every), names[::every])
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"accuracy {float((predicted == truth)[seen].float().mean()):.3f}")
        return figure
