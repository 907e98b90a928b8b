"""Truncated backpropagation through time with a carried state."""

from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torch.optim import Optimizer

from lstmopt.data.chunks import Chunks
from lstmopt.data.datamodule import DataModule
from lstmopt.data.splits import Sequences, Text
from lstmopt.errors import ConfigError
from lstmopt.models.sequence_model import SequenceModel
from lstmopt.module import LSTMModule


class TBPTT(pl.Callback):
    """Train long sequences piece by piece: the LSTM's state goes on from batch to batch, its gradient does not.

    With lstmopt's data, the training part is read as `Chunks`; validation and test stay as they are, so that results
    can be compared with those of other options. Another datamodule has to give batches that go on where the batch
    before stopped; its state begins anew every epoch, or where a batch has an attribute `starts` that is true. Every
    `nn.LSTM` that is called on a tensor without a state gets the carried one. The state is part of a checkpoint.

    Args:
        length: steps per piece; None is the text's own length per sample, or 32 for other sequences.
        random_length: draw the length of every piece; the learning rate of its step is scaled by its length.

    Raises:
        ConfigError: the task has no label at every step, or the model reads from both ends or carries no state.

    Reference: Williams & Peng 1990; random lengths: Merity, Keskar & Socher 2018.
    """

    cuts = True  # the training part

    def __init__(self, length: int | None = None, random_length: bool = False) -> None:
        self.length, self.random_length = length, random_length
        self.states: list[tuple[Tensor, Tensor] | None] = []
        self._hooks: list[Any] = []
        self._lengths: list[int] = []
        self._rates: list[tuple[dict[str, Any], float]] = []  # groups whose rate is scaled, and what it was
        self._base = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Cut the training part, and put the hooks in place."""
        if stage != "fit":
            return
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(pl_module, LSTMModule) and (pl_module.model.per_channel or not pl_module.task.per_step):
            raise ConfigError("tbptt needs a model and a task with an output at every step", "type memory=none")
        lstms = [m for m in pl_module.modules() if isinstance(m, nn.LSTM)]
        models = [m for m in pl_module.modules() if isinstance(m, SequenceModel)] or lstms
        if not models:
            raise ConfigError("tbptt needs an nn.LSTM, and this module has none", "leave TBPTT out")
        if any(lstm.bidirectional for lstm in lstms):
            raise ConfigError("a state cannot be carried to an LSTM that reads from the end", "type memory=none")
        if isinstance(datamodule, DataModule):
            datamodule.cut = self._cut
            datamodule.check_limits(trainer)
        self.states = self.states if len(self.states) == len(models) else [None] * len(models)
        for number, model in enumerate(models):
            names = ("x", "state", 2) if isinstance(model, SequenceModel) else ("input", "hx", 1)
            self._hooks.append(model.register_forward_pre_hook(self._give(number, *names), with_kwargs=True))
            self._hooks.append(model.register_forward_hook(self._keep(number)))

    def _cut(self, split: Any, batch_size: int) -> Chunks:
        if not isinstance(split, Sequences | Text):
            raise ConfigError("tbptt cuts texts and sequences, and these data are neither", "type memory=none")
        chunks = Chunks(split, batch_size, self.length, self.random_length)
        self._base = chunks.length
        return chunks

    def _give(self, number: int, first: str, name: str, place: int) -> Any:
        """Puts the state where a call leaves its argument `name`, the one at `place`, out; `first` is the input's."""

        def hook(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            state, x = self.states[number], args[0] if args else kwargs[first]
            given = args[place] if len(args) > place else kwargs.get(name)
            if not model.training or given is not None or state is None or not isinstance(x, Tensor):
                return None
            if state[0].shape[1] != x.shape[0 if getattr(model, "batch_first", True) else 1]:
                return None  # a smaller last batch
            carried = (state[0].to(x.device), state[1].to(x.device))
            if len(args) > place:
                return (*args[:place], carried, *args[place + 1 :]), kwargs
            return args, kwargs | {name: carried}

        return hook

    def _keep(self, number: int) -> Any:
        def hook(model: nn.Module, args: Any, output: Any) -> None:
            if model.training:
                h, c = output[1]
                self.states[number] = (h.detach(), c.detach())

        return hook

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Scale the learning rate around each step only, so that schedules never see it scaled."""
        if self.random_length:
            for optimizer in trainer.optimizers:
                self._hooks.append(optimizer.register_step_pre_hook(self._scale_rates))
                self._hooks.append(optimizer.register_step_post_hook(self._restore_rates))

    def _scale_rates(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._rates = [(group, group["lr"]) for group in optimizer.param_groups]
        scale = sum(self._lengths) / len(self._lengths) / self._base if self._lengths else 1.0
        self._lengths = []
        for group in optimizer.param_groups:
            group["lr"] *= scale

    def _restore_rates(self, *_: Any) -> None:
        for group, rate in self._rates:
            group["lr"] = rate
        self._rates = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin anew where sequences begin."""
        if getattr(batch, "starts", batch_idx == 0):
            self.forget()
        if self._base and isinstance(batch, tuple):
            self._lengths.append(batch[0].shape[1])

    def forget(self) -> None:
        """Begin anew with the next batch; a step that was left out may have left NaN in the states."""
        self.states = [None] * len(self.states)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave model and data as they were."""
        self._leave(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave model, data and rates as they were; the states stay, for a checkpoint."""
        self._leave(trainer)

    def _leave(self, trainer: pl.Trainer) -> None:
        self._restore_rates()
        while self._hooks:
            self._hooks.pop().remove()
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, DataModule):
            datamodule.cut = None

    def state_dict(self) -> dict[str, Any]:
        """The carried states."""
        return {"states": [None if state is None else [state[0], state[1]] for state in self.states]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.states = [None if state is None else (state[0], state[1]) for state in state_dict["states"]]
