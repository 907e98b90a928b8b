"""Tagging: a label at every step."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lstmopt.data.batch import Batch, DataSpec, Split
from lstmopt.tasks.classification import IGNORE, Classification
from lstmopt.tasks.task import Metrics, Predict, all_samples, valid_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tagging(Classification):
    """Logits `[B, T, K]` from every LSTM output; steps beyond a sequence's length do not count."""

    name = "tagging"
    per_step = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)

    def labelled(self, batch: Batch) -> Batch:
        """The batch with -100 for each label beyond a sequence's length."""
        if batch.lengths is None:
            return batch
        return batch._replace(y=batch.y.masked_fill(~valid_steps(batch, batch.y.shape[1]), IGNORE))

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over the steps that exist."""
        return super().loss(out, self.labelled(batch))

    def update(self, metrics: Metrics, out: Tensor, batch: Batch) -> None:
        """Add one batch."""
        super().update(metrics, out, self.labelled(batch))

    def picture(self, predict: Predict, part: Split) -> "Figure":
        """True and predicted labels of up to eight sequences, as stripes."""
        from matplotlib.figure import Figure

        batch = self.labelled(all_samples(part, 8))
        predicted = predict(batch).argmax(-1).cpu().masked_fill(batch.y == IGNORE, IGNORE)
        stripes = torch.stack((batch.y, predicted), dim=1).flatten(0, 1).float()
        stripes[stripes == IGNORE] = float("nan")
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(stripes, aspect="auto", interpolation="none", cmap="tab20")
        axes.set_yticks(range(len(stripes)), ["true", "predicted"] * (len(stripes) // 2))
        for border in range(2, len(stripes), 2):
            axes.axhline(border - 0.5, color="black")
        axes.set_xlabel("step")
        figure.colorbar(image, label="label")
        return figure
