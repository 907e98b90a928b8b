"""Language modelling: the next token at every step."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.text import Perplexity

from lstmopt.data.batch import Batch, DataSpec, Split
from lstmopt.tasks.task import Context, Metrics, Predict, Task, all_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LanguageModeling(Task):
    """Embedded tokens in, logits `[B, T, V]` of the next token out; the loss is in nats per token.

    Args:
        spec: facts about the data.
        embedding_size: features per embedded token.
        tie_embeddings: the decoder's matrix is the embedding's, `[V, embedding_size]`; where LSTM outputs have another
            width, a linear map to embedding_size comes first.

    Reference: tied embeddings: Inan et al. 2017; Press & Wolf 2017.
    """

    name = "language_modeling"
    per_step = True
    sees_future = True
    primary = "perplexity"
    baseline = "unigram"

    def __init__(self, spec: DataSpec, embedding_size: int = 64, tie_embeddings: bool = False) -> None:
        super().__init__(spec)
        self.embedding = nn.Embedding(spec.input_size, embedding_size)
        self.input_size = embedding_size
        self.tie_embeddings = tie_embeddings
        self.projection: nn.Module = nn.Identity()

    def make_head(self, width: int, per_channel: bool = False) -> None:
        """Logits of all tokens; tied, they are products with the embedded tokens."""
        super().make_head(width, per_channel)
        if not self.tie_embeddings:
            return
        if width != self.input_size:
            self.projection = nn.Linear(width, self.input_size, bias=False)
        self.head = nn.Linear(self.input_size, self.spec.output_size)
        self.head.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)  # torch's unit variance would make large logits of it

    def decode(self, hidden: Tensor, context: Context) -> Tensor:
        """Logits `[B, T, V]`."""
        return self.head(self.projection(hidden))

    def encode(self, batch: Batch) -> tuple[Tensor, Context]:
        """Embedded tokens `[B, T, embedding_size]`."""
        return self.embedding(batch.x), None

    def loss(self, out: Tensor, batch: Batch) -> Tensor:
        """Mean cross-entropy over all tokens."""
        return F.cross_entropy(out.flatten(0, 1), batch.y.flatten())

    def sample(self, out: Tensor, batch: Batch) -> Tensor:
        """Tokens `[B, T]`."""
        return torch.multinomial(out.flatten(0, 1).float().softmax(-1), 1).view_as(batch.y)

    def metrics(self) -> dict[str, Metric]:
        """`perplexity` = exp(mean loss)."""
        return super().metrics() | {"perplexity": Perplexity()}

    def update(self, metrics: Metrics, out: Tensor, batch: Batch) -> None:
        """Add one batch."""
        out = out.float()
        metrics["loss"].update(self.loss(out, batch), weight=batch.y.numel())
        metrics["perplexity"].update(out, batch.y)

    def prior(self, train: Split) -> Tensor:
        """Unigram frequencies of the training text, each count plus one."""
        tokens = all_samples(train, len(train)).y.flatten()
        counts = torch.bincount(tokens, minlength=self.spec.output_size) + 1.0
        return (counts / counts.sum()).log()

    def picture(self, predict: Predict, part: Split) -> "Figure":
        """A sample of text: the end of a true stretch, then what the model writes, token by token."""
        from matplotlib.figure import Figure

        tokens = part.batch(torch.tensor([0])).x
        generator = torch.Generator().manual_seed(0)
        words, seen = self.spec.class_names, tokens.shape[1]
        for _ in range(200):
            window = tokens[:, -seen:]
            logits = predict(Batch(window, window))[0, -1].float().cpu()
            drawn = torch.multinomial((logits / 0.8).softmax(-1), 1, generator=generator)
            tokens = torch.cat((tokens, drawn[None]), dim=1)
        space = self.spec.separator
        text = [words[t] for t in tokens[0].tolist()]
        figure = Figure(figsize=(9, 6), layout="constrained")
        axes = figure.subplots()
        axes.axis("off")
        shown = f"--- seen ---\n{space.join(text[:seen])}\n--- written by the model ---\n{space.join(text[seen:])}"
        # no mathematics in the text: every dollar sign is a dollar sign
        axes.text(0, 1, shown, va="top", family="monospace", fontsize=9, wrap=True, parse_math=False)
        return figure
