"""Kernels compiled for this CPU, for the LSTMs that they make faster."""

import pytorch_lightning as pl
from torch import nn

from lstmopt.callbacks.amp import AMP
from lstmopt.kernels import lstm_amx
from lstmopt.kernels.build import Unavailable
from lstmopt.kernels.lstm_cpu import check
from lstmopt.models.padded_lstm import PaddedLSTM


class CompiledKernel(pl.Callback):
    """Run layers of `H + I` up to 256 in float32, or of any size in bfloat16, on kernels that come with lstmopt.

    A kernel is compiled for this CPU when it is first needed, which takes about two seconds, kept in the user's cache,
    and compared with torch's on a small layer before it is used. What it computes is what `nn.LSTM` computes, to the
    rounding of float32; a layer's products, gates and the gradients of its weights are done without leaving the cache,
    and torch's threads share a batch without waiting for one another. With `precision=bf16_mixed` a CPU that has AMX
    takes another: factors in bfloat16, sums, cells and their gradients in float32. Layers that are larger, other number
    formats, projections, packed sequences, second derivatives and GPUs stay with torch's kernels. Where there is no C++
    compiler, that is said and torch's kernels do all of it.

    Any `nn.LSTM` of the module is taken, and given back at the end. The results do not depend on the number of threads,
    except for the gradients of the weights, which are added up thread by thread.
    """

    def __init__(self) -> None:
        self._plain: list[nn.LSTM] = []
        self._set: list[PaddedLSTM] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the LSTMs, if there is a kernel for them."""
        lstms = [module for module in pl_module.modules() if isinstance(module, nn.LSTM) and not module.proj_size]
        if not lstms or trainer.strategy.root_device.type != "cpu" or self._set:
            return
        try:
            check()
        except Unavailable as reason:
            if stage == "fit" and trainer.is_global_zero:
                print(f"compiled_kernel: {reason}; torch's kernels are used", flush=True)
            return
        if "bf16" in str(trainer.precision) or any(isinstance(callback, AMP) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            lstm_amx.here()  # built and compared now, not within a step
        for lstm in lstms:
            if type(lstm) is nn.LSTM:
                lstm.__class__ = PaddedLSTM  # which has no state of its own
                self._plain.append(lstm)
            if isinstance(lstm, PaddedLSTM):
                lstm.compiled = True
                self._set.append(lstm)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the LSTMs back as they were."""
        self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the LSTMs back as they were."""
        self._give_back()

    def _give_back(self) -> None:
        for own in self._set:
            del own.compiled
        for plain in self._plain:
            plain.__class__ = nn.LSTM
        self._set, self._plain = [], []
