"""Polyphonic music: which of 88 keys sound in the next frame."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from lstmopt.data.batch import Batch, Split
from lstmopt.tasks.task import Metrics, Predict, Task, all_samples, mean_metric, valid_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Polyphonic(Task):
    """Independent Bernoulli logits `[B, T, K]` for each key; the loss is the negative log-likelihood per frame.

    It is summed over keys and averaged over the frames that exist, in nats (Boulanger-Lewandowski et al. 2012).
    """

    name = "polyphonic"
    per_step = True
    sees_future = True
    primary = "nll"
    baseline = "key_frequency"

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Negative log-likelihood per frame."""
        mask = valid_steps(batch, out.shape[1])
        per_frame = F.binary_cross_entropy_with_logits(out, batch.y.to(out.dtype), reduction="none").sum(-1)
        return (per_frame * mask).sum() / mask.sum().clamp(min=1)

    def labels(self, batch: Batch) -> int:
        """How many frames there are; the loss is a mean over them."""
        return int(valid_steps(batch, batch.y.shape[1]).sum())

    def sample(self, out: Tensor, batch: Batch) -> Tensor:
        """Keys `[B, T, K]`, each on or off."""
        return torch.bernoulli(out.float().sigmoid())

    def metrics(self) -> dict[str, Metric]:
        """`nll` per frame."""
        return super().metrics() | {"nll": mean_metric()}

    def update(self, metrics: Metrics, out: Tensor, batch: Batch) -> None:
        """Add one batch."""
        loss, frames = self.loss(out.float(), batch), valid_steps(batch, out.shape[1]).sum()
        for name in ("loss", "nll"):
            metrics[name].update(loss, weight=frames)

    def prior(self, train: Split) -> Tensor:
        """How often each key sounds in the training tunes."""
        batch = all_samples(train, len(train))
        frames = batch.y[valid_steps(batch, batch.y.shape[1])]
        return torch.logit(frames.mean(dim=0).clamp(1e-4, 1 - 1e-4))

    def picture(self, predict: Predict, part: Split) -> "Figure":
        """A tune as a piano roll: the truth, and the probability that each key sounds."""
        from matplotlib.figure import Figure

        batch = part.batch(torch.tensor([0]))
        probability = predict(batch)[0].float().sigmoid().cpu()
        figure = Figure(figsize=(9, 7), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for axes, roll, title in ((upper, batch.y[0], "true"), (lower, probability, "predicted probability")):
            axes.imshow(roll.T, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1, interpolation="none")
            axes.set_ylabel("key")
            axes.set_title(title, fontsize="small")
        lower.set_xlabel("frame")
        return figure
