"""Which kernel an LSTM runs on, and why."""

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from lstmopt.models.autocast import computed_in
from lstmopt.models.loop_layer import LoopLayer
from lstmopt.models.padded_lstm import PaddedLSTM
from lstmopt.models.split_lstm import SplitLayers


class Kernel(NamedTuple):
    """A kernel: its name, why it is this one, and whether it is fused (one call for a whole layer)."""

    name: str
    reason: str
    fused: bool = True

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


class GPU(NamedTuple):
    """What cuDNN's choice depends on: compute capability and number of multiprocessors."""

    major: int
    minor: int
    processors: int


def kernel(layer: nn.LSTM | LoopLayer, x: Tensor | PackedSequence, unequal: bool = False) -> Kernel:
    """The kernel on which `layer` runs over `x` in training, under the autocast that is on.

    Args:
        layer: the LSTM.
        x: its input.
        unequal: it is also given lengths.

    What decides on a CPU: `use_mkldnn` and the two overloads of `lstm` in torch's aten/src/ATen/native/RNN.cpp.
    """
    if isinstance(layer, LoopLayer):
        return Kernel("Python loop", layer.because, fused=False)
    data, packed = (x.data, True) if isinstance(x, PackedSequence) else (x, False)
    dtype = computed_in(data)
    if data.device.type == "cpu":
        compiled = layer.compiles(data) if not packed and isinstance(layer, PaddedLSTM) else None
        if compiled and isinstance(layer, PaddedLSTM):
            of_layers = _compiled(compiled, layer, data.shape[2] + unequal, unequal)
            if of_layers is not None:
                return of_layers
        lost = _why_not_onednn(layer, dtype, packed)
        if lost:
            return Kernel("native, step by step", " and ".join(lost), fused=False)
        return Kernel("oneDNN", f"{_name(dtype)} on a CPU")
    if data.device.type != "cuda":
        return Kernel("torch's own", f"on {data.device.type}")
    if not torch.cudnn_is_acceptable(data):
        return Kernel("native, step by step", f"cuDNN is off or does not take {_name(data.dtype)} input", fused=False)
    found = torch.cuda.get_device_properties(data.device)
    batch_size = len(x.sorted_indices) if isinstance(x, PackedSequence) and x.sorted_indices is not None else len(data)
    layer, batch_size = as_called(layer, batch_size, dtype, unequal)
    return cudnn(layer, dtype, packed, batch_size, GPU(found.major, found.minor, found.multi_processor_count))


def as_called(layer: nn.LSTM, batch_size: int, dtype: torch.dtype, unequal: bool) -> tuple[nn.LSTM, int]:
    """What an LSTM that calls its kernel layer by layer asks for: its least fitting layer, and the batch size."""
    if not isinstance(layer, PaddedLSTM) or not (unequal or isinstance(layer, SplitLayers)):
        return layer, batch_size
    directions = 1 + layer.bidirectional
    above = [directions * (layer.proj_size or layer.hidden_size)] * (layer.num_layers > 1)
    inputs, hidden = [size + unequal for size in (layer.input_size, *above)], layer.hidden_size
    if isinstance(layer, SplitLayers):
        batch_size, _, hidden = layer.padded(batch_size, inputs[0], dtype)
        inputs = [layer.padded(batch_size, size, dtype)[1] for size in inputs]
    worst = next((size for size in inputs if size % 128), inputs[0])
    called = nn.LSTM(worst, hidden, bidirectional=layer.bidirectional, proj_size=layer.proj_size, device="meta")
    return called, batch_size


def _compiled(compiled: ModuleType, lstm: PaddedLSTM, input_size: int, unequal: bool) -> Kernel | None:
    """The kernel where the compiled one takes layers; None if all are too large for it."""
    hidden = lstm.hidden_size
    above = hidden * (1 + lstm.bidirectional) + unequal
    beaten = [compiled.beaten(hidden, input_size), *[compiled.beaten(hidden, above)] * (lstm.num_layers - 1)]
    if all(beaten):
        return None
    if not any(beaten):
        return Kernel("compiled for this CPU", f"{_name(compiled.FORMAT)}, H={hidden}")
    layers = "layer 1" if beaten[1] else "the layers above the first"
    return Kernel("compiled for this CPU and oneDNN", f"{_name(compiled.FORMAT)}, the first for {layers}, H={hidden}")


def _why_not_onednn(lstm: nn.LSTM, dtype: torch.dtype, packed: bool) -> list[str]:
    """All that keeps oneDNN from training this LSTM on a CPU."""
    lost = []
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        lost.append("oneDNN is off")
    if packed:
        lost.append("packed sequences")
    if lstm.proj_size:
        lost.append(f"proj_size={lstm.proj_size}")
    if dtype == torch.bfloat16:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            lost.append("this CPU has no bfloat16 arithmetic")
    elif dtype != torch.float32:
        lost.append(_name(dtype))
    return lost


def cudnn(lstm: nn.LSTM, dtype: torch.dtype, packed: bool, batch_size: int, gpu: GPU) -> Kernel:
    """The algorithm that torch asks cuDNN for, `get_algo` in aten/src/ATen/native/cudnn/RNN.cpp.

    `persistent` keeps the recurrent weights on the chip; `standard` reads them again at every step.
    """
    hidden = lstm.hidden_size
    if lstm.proj_size:
        return Kernel("cuDNN standard", f"proj_size={lstm.proj_size}")
    if packed:
        return Kernel("cuDNN standard", "packed sequences")
    if dtype == torch.float64:
        return Kernel("cuDNN standard", "float64")
    if hidden <= 128 and gpu.major >= 6:
        return Kernel("cuDNN persistent", f"hidden_size={hidden} is at most 128")
    lost = _why_not_persistent(lstm, dtype, batch_size, gpu)
    if not lost:
        return Kernel("cuDNN persistent", "float16, one layer, sizes in multiples of 128")
    if hidden <= 192 and gpu.major >= 6:
        return Kernel("cuDNN persistent forward, standard backward", f"hidden_size={hidden} is above 128")
    return Kernel("cuDNN standard", ", ".join(lost))


def _why_not_persistent(lstm: nn.LSTM, dtype: torch.dtype, batch_size: int, gpu: GPU) -> list[str]:
    """All that keeps cuDNN's persistent kernel for large layers from this one."""
    conditions = {
        f"{_name(dtype)} is not float16": dtype == torch.float16,
        f"{lstm.num_layers} layers in one module": lstm.num_layers == 1,
        "two directions": not lstm.bidirectional,
        f"hidden_size={lstm.hidden_size} is no multiple of 128 up to 1024": lstm.hidden_size % 128 == 0
        and lstm.hidden_size <= 1024,
        f"input_size={lstm.input_size} is no multiple of 128": lstm.input_size % 128 == 0,
        f"batch size {batch_size} is no multiple of 8 up to 128": batch_size % 8 == 0 and batch_size <= 128,
        "this GPU": gpu.major >= 8 and gpu.minor != 6 and gpu.processors >= 98,
    }
    return [reason for reason, met in conditions.items() if not met]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
