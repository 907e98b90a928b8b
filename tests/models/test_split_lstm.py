"""Layers one by one and sizes filled up, against torch's own LSTM."""

import copy

import pytest
import torch
from torch import nn

from lstmopt.models.kernel import GPU, as_called, cudnn
from lstmopt.models.lstm import LSTM
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.split_lstm import SplitLayers, SplitLSTM

H100 = GPU(9, 0, 132)


def gradients(layer, x, state, lengths=None):
    """Outputs, states and the gradients of everything, of a loss that sees all of them."""
    out, (h, c) = layer(x, state, *([] if lengths is None else [lengths]))
    loss = (out * torch.arange(out.numel()).view_as(out).cos()).sum() + (h.sin() + c.sin()).sum()
    return [out, h, c, *torch.autograd.grad(loss, [x, *(state or ()), *layer.parameters()])]


@pytest.mark.parametrize("pad_to", [None, 16, 1], ids=str)
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("given", [False, True], ids=["zero state", "given state"])
def test_split_layers_are_torchs_lstm(pad_to, layers, given):
    torch.manual_seed(0)
    plain = nn.LSTM(5, 12, layers, batch_first=True).double()
    split = SplitLayers(5, 12, layers, batch_first=True).double()
    split.load_state_dict(plain.state_dict())
    split.pad_to = pad_to
    x = torch.randn(3, 7, 5, dtype=torch.double, requires_grad=True)
    state = tuple(torch.randn(layers, 3, 12, dtype=torch.double, requires_grad=True) for _ in "hc") if given else None
    for ours, theirs in zip(gradients(split, x, state), gradients(plain, x, state), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pad_to", [None, 16], ids=str)
def test_unequal_lengths_are_those_of_padded_lstm(pad_to):
    torch.manual_seed(0)
    plain, lengths = PaddedLSTM(5, 12, 2, batch_first=True).double(), torch.tensor([7, 2, 5])
    split = SplitLayers(5, 12, 2, batch_first=True).double()
    split.load_state_dict(plain.state_dict())
    split.pad_to = pad_to
    x = torch.randn(3, 7, 5, dtype=torch.double, requires_grad=True)
    for ours, theirs in zip(gradients(split, x, None, lengths), gradients(plain, x, None, lengths), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_half_precision_is_filled_up_by_itself():
    """Layers of 5 features and 12 units run as 128 by 128, with the answer of float32 to the digits of float16."""
    torch.manual_seed(0)
    split, seen = SplitLSTM(5, 12, 2), []
    run = SplitLayers.__mro__[1]._run
    x = torch.randn(3, 7, 5)
    expected = split(x)[0]
    half = copy.deepcopy(split).half()

    def look(self, x, state, weights):
        seen.append((tuple(x.shape), tuple(weights[0][1].shape)))
        return run(self, x, state, weights)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PaddedLSTM, "_run", look)
        found = half(x.half())[0]
    assert seen == [((7, 8, 128), (512, 128))] * 2
    assert found.shape == expected.shape and found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-3)


def test_checkpoints_go_from_one_to_the_other():
    torch.manual_seed(0)
    plain, split = LSTM(5, 12, num_layers=2), SplitLSTM(5, 12, 2)
    split.load_state_dict(plain.state_dict())
    x = torch.randn(3, 7, 5)
    torch.testing.assert_close(split(x)[0], plain(x)[0], rtol=1e-5, atol=1e-6)


def test_dropout_is_between_layers_and_in_training_only():
    torch.manual_seed(0)
    split, x = SplitLSTM(5, 12, 2, dropout=0.5), torch.randn(3, 7, 5)
    first, again = split(x)[0], split(x)[0]
    assert not torch.equal(first, again)
    split.eval()
    torch.testing.assert_close(split(x)[0], nn.LSTM.forward(split.lstm, x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "unequal", "answer"),
    [
        (SplitLayers(7, 500, 3, batch_first=True), False, "persistent"),
        (SplitLayers(7, 500, 3, batch_first=True), True, "persistent"),
        (SplitLayers(7, 1100, 3, batch_first=True), False, "standard"),
        (SplitLayers(128, 512, 1, batch_first=True, bidirectional=True), False, "standard"),
        (PaddedLSTM(128, 512, 1, batch_first=True), False, "persistent"),
        (PaddedLSTM(128, 512, 1, batch_first=True), True, "standard"),  # the padding's feature makes it 129
        (PaddedLSTM(127, 512, 1, batch_first=True), True, "persistent"),
        (PaddedLSTM(127, 512, 2, batch_first=True), True, "standard"),  # and so are the 512 of the second layer
        (PaddedLSTM(128, 512, 2, batch_first=True), False, "standard"),
    ],
    ids=str,
)
def test_the_kernel_that_the_calls_are_eligible_for(layer, unequal, answer):
    called, batch = as_called(layer, 64, torch.float16, unequal)
    assert cudnn(called, torch.float16, False, batch, H100).name == f"cuDNN {answer}"
