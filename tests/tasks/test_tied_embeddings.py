"""Tied embeddings: one matrix for both ends of a language model."""

import pytest
import torch

from lstmopt.data.batch import Batch, DataSpec
from lstmopt.data.splits import Text
from lstmopt.models.lstm import LSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.language_modeling import LanguageModeling

SPEC = DataSpec("language_modeling", 9, 9, class_names=list("abcdefghi"))


@pytest.mark.parametrize("width", [5, 8])
def test_logits_are_products_with_the_embedded_tokens(width):
    torch.manual_seed(0)
    task = LanguageModeling(SPEC, embedding_size=5, tie_embeddings=True)
    task.make_head(width)
    hidden = torch.randn(2, 3, width)
    mapped = hidden if width == 5 else hidden @ task.projection.weight.T
    expected = torch.einsum("btd,vd->btv", mapped, task.embedding.weight) + task.head.bias
    torch.testing.assert_close(task.decode(hidden, None), expected)
    assert task.head.weight is task.embedding.weight
    assert sum(p.numel() for p in task.parameters()) == 9 * 5 + 9 + (5 * width if width != 5 else 0)


def test_both_ends_learn_the_one_matrix():
    torch.manual_seed(0)
    task = LanguageModeling(SPEC, embedding_size=5, tie_embeddings=True)
    module = LSTMModule(task, LSTM(5, 5), lambda named: torch.optim.SGD(named, lr=0.1))
    tokens = torch.randint(9, (2, 4))
    batch = Batch(tokens, tokens)
    module.training_loss(batch).backward()
    both = task.embedding.weight.grad.clone()
    # each end alone: the other reads a copy
    module.zero_grad()
    task.head.weight = torch.nn.Parameter(task.embedding.weight.detach().clone())
    module.training_loss(batch).backward()
    torch.testing.assert_close(both, task.embedding.weight.grad + task.head.weight.grad)
    assert task.embedding.weight.grad.any() and task.head.weight.grad.any()


def test_training_still_begins_at_the_prior():
    torch.manual_seed(0)
    task = LanguageModeling(SPEC, embedding_size=5, tie_embeddings=True)
    task.make_head(8)
    part = Text(torch.arange(50) % 3, 6)
    task.start_at_prior(part)
    torch.testing.assert_close(task.decode(torch.zeros(1, 1, 8), None)[0, 0].log_softmax(-1), task.prior(part))


def test_untied_is_as_before():
    task = LanguageModeling(SPEC, embedding_size=5)
    task.make_head(8)
    assert task.head.weight.shape == (9, 8) and task.head.weight is not task.embedding.weight
