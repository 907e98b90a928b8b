"""What is said about kernels, against the operators that torch records."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.profiler import profile

from lstmopt.models.kernel import GPU, cudnn, kernel
from lstmopt.models.layer_norm_lstm import LayerNormLSTM
from lstmopt.models.weight_drop import drop_weight
from lstmopt.models.zoneout_lstm import ZoneoutLSTM

H100 = GPU(9, 0, 132)


def with_weight_drop():
    lstm = nn.LSTM(8, 16, batch_first=True)
    drop_weight(lstm, 0.5)
    return lstm


def packed(x):
    return pack_padded_sequence(x, torch.tensor([5, 2, 3, 1]), batch_first=True, enforce_sorted=False)


BF16 = torch.autocast("cpu", torch.bfloat16)
OFF = torch.backends.mkldnn.flags(enabled=False)
# layer, what is done to its input, context, words of the reason
VARIANTS = {
    "float32": (lambda: nn.LSTM(8, 16, batch_first=True), None, None, "float32"),
    "bfloat16 autocast": (lambda: nn.LSTM(8, 16, batch_first=True), None, BF16, "bfloat16"),
    "bfloat16": (lambda: nn.LSTM(8, 16, batch_first=True).bfloat16(), torch.Tensor.bfloat16, None, "bfloat16"),
    "packed": (lambda: nn.LSTM(8, 16, batch_first=True), packed, None, "packed"),
    "packed, two directions": (lambda: nn.LSTM(8, 16, batch_first=True, bidirectional=True), packed, None, "packed"),
    "packed, autocast": (lambda: nn.LSTM(8, 16, batch_first=True), packed, BF16, "packed"),
    "projection": (lambda: nn.LSTM(8, 16, batch_first=True, proj_size=4), None, None, "proj_size=4"),
    "float64": (lambda: nn.LSTM(8, 16, batch_first=True).double(), torch.Tensor.double, None, "float64"),
    "float64, autocast": (lambda: nn.LSTM(8, 16, batch_first=True).double(), torch.Tensor.double, BF16, "float64"),
    "two directions": (lambda: nn.LSTM(8, 16, batch_first=True, bidirectional=True), None, None, "float32"),
    "no bias": (lambda: nn.LSTM(8, 16, batch_first=True, bias=False), None, None, "float32"),
    "two layers": (lambda: nn.LSTM(8, 16, 2, batch_first=True, dropout=0.5), None, None, "float32"),
    "time first": (lambda: nn.LSTM(8, 16), None, None, "float32"),
    "weight drop": (with_weight_drop, None, None, "float32"),
    "oneDNN off": (lambda: nn.LSTM(8, 16, batch_first=True), None, OFF, "oneDNN is off"),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(
    "variant",
    [pytest.param(name, marks=pytest.mark.bf16) if name == "bfloat16 autocast" else name for name in VARIANTS],
)
def test_kernel_is_the_one_that_torch_records(variant):
    make, change, context, words = VARIANTS[variant]
    layer, x = make(), torch.randn(4, 5, 8)
    x = change(x) if change else x
    with context or contextlib.nullcontext():
        told = kernel(layer, x)
        with profile() as recorded:
            out, _ = layer(x)
            (out.data if isinstance(out, nn.utils.rnn.PackedSequence) else out).float().sum().backward()
    names = {event.key for event in recorded.key_averages()}
    assert words in told.reason
    assert told.fused == (told.name == "oneDNN") == any("mkldnn_rnn_layer" in name for name in names), names
    assert "lstm" in " ".join(names), "something was recorded"


def test_all_reasons_are_told():
    told = kernel(nn.LSTM(8, 16, batch_first=True, proj_size=4).double(), packed(torch.randn(4, 5, 8).double()))
    assert str(told) == "native, step by step (packed sequences and proj_size=4 and float64)"


@pytest.mark.parametrize(("model", "why"), [(LayerNormLSTM, "layer norm"), (ZoneoutLSTM, "zoneout")])
def test_a_loop_is_a_loop(model, why):
    assert kernel(model(8).layers[0], torch.randn(4, 5, 8)) == ("Python loop", why, False)


# from get_algo in torch's aten/src/ATen/native/cudnn/RNN.cpp: arguments of nn.LSTM, format, batch size, packed, answer
HALF, FULL = torch.float16, torch.float32
CUDNN = [
    ((8, 128), {"num_layers": 3, "bidirectional": True}, FULL, 5, False, "persistent"),
    ((8, 192), {}, FULL, 64, False, "persistent forward, standard backward"),
    ((8, 193), {}, FULL, 64, False, "standard"),
    ((8, 128), {}, torch.float64, 64, False, "standard"),
    ((8, 128), {}, HALF, 64, True, "standard"),
    ((8, 128), {"proj_size": 8}, HALF, 64, False, "standard"),
    ((256, 512), {}, HALF, 64, False, "persistent"),
    ((256, 512), {}, torch.bfloat16, 64, False, "standard"),
    ((256, 512), {"num_layers": 2}, HALF, 64, False, "standard"),
    ((256, 512), {"bidirectional": True}, HALF, 64, False, "standard"),
    ((200, 512), {}, HALF, 64, False, "standard"),
    ((256, 1152), {}, HALF, 64, False, "standard"),
    ((256, 512), {}, HALF, 60, False, "standard"),
    ((256, 512), {}, HALF, 136, False, "standard"),
]


@pytest.mark.parametrize(("sizes", "options", "dtype", "batch_size", "is_packed", "answer"), CUDNN)
def test_cudnn_by_the_conditions_in_its_source(sizes, options, dtype, batch_size, is_packed, answer):
    assert cudnn(nn.LSTM(*sizes, **options), dtype, is_packed, batch_size, H100).name == f"cuDNN {answer}"


@pytest.mark.parametrize("gpu", [GPU(8, 6, 84), GPU(8, 0, 56), GPU(7, 5, 68)])
def test_cudnn_on_gpus_that_are_left_out(gpu):
    told = cudnn(nn.LSTM(256, 512), HALF, False, 64, gpu)
    assert told.name == "cuDNN standard" and told.reason == "this GPU"
