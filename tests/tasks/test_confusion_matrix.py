"""The picture of a classification, with few classes and with many."""

import pytest
import torch

from lstmopt.data.batch import DataSpec
from lstmopt.data.splits import Sequences
from lstmopt.tasks.classification import Classification


def drawn(classes, names=()):
    """Texts in the matrix, and the ticks' places and names; class k is taken for k + 1."""
    task = Classification(DataSpec("classification", 1, classes, class_names=list(names)))
    labels = torch.arange(2 * classes) % classes

    def predict(batch):
        return torch.nn.functional.one_hot((batch.y + 1) % classes, classes).float()

    (axes,) = task.picture(predict, Sequences(torch.zeros(2 * classes, 2, 1), labels)).axes
    (image,) = axes.images
    by_hand = torch.eye(classes).roll(1, dims=1)
    assert torch.equal(torch.as_tensor(image.get_array().data), by_hand)
    ticks = [
        (list(axis.get_ticklocs()), [label.get_text() for label in axis.get_ticklabels()])
        for axis in (axes.xaxis, axes.yaxis)
    ]
    assert ticks[0] == ticks[1]
    return [text.get_text() for text in axes.texts], ticks[0]


@pytest.mark.parametrize("classes", [2, 30])
def test_few_classes_have_counts_and_names(classes):
    texts, (places, names) = drawn(classes, [f"c{k}" for k in range(classes)])
    assert len(texts) == classes**2 and texts.count("2") == classes and texts[1] == "2"
    assert places == list(range(classes)) and names[-1] == f"c{classes - 1}"


@pytest.mark.parametrize(("classes", "every"), [(31, 2), (60, 2), (150, 5), (1000, 34)])
def test_many_classes_have_colours_and_a_few_names(classes, every):
    texts, (places, names) = drawn(classes)
    assert not texts
    assert places == list(range(0, classes, every)) and names == [str(k) for k in places] and len(places) <= 30
