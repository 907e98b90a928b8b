"""Recorded steps: what the callback does around the graphs on a CPU, and that there is nothing in a step that a graph
cannot hold. The recorder itself, `torch.cuda.make_graphed_callables`, needs a GPU."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lstmopt.build import build
from lstmopt.callbacks.cuda_graph import CudaGraph
from lstmopt.conf_dir import conf_dir
from lstmopt.data.batch import Batch, DataSpec
from lstmopt.errors import ConfigError
from lstmopt.models.awd_lstm import AWDLSTM
from lstmopt.models.layer_norm_lstm import LayerNormLSTM
from lstmopt.models.lstm import LSTM
from lstmopt.models.patch_lstm import PatchLSTM
from lstmopt.models.residual_lstm import ResidualLSTM
from lstmopt.models.split_lstm import SplitLSTM
from lstmopt.models.zoneout_lstm import ZoneoutLSTM
from lstmopt.module import LSTMModule
from lstmopt.tasks.classification import Classification
from lstmopt.tasks.forecasting import Forecasting
from lstmopt.tasks.language_modeling import LanguageModeling
from lstmopt.tasks.polyphonic import Polyphonic
from lstmopt.tasks.tagging import Tagging


class LikeGraphs(CudaGraph):
    """On a CPU, with all that makes graphs treacherous: inputs, the loss and gradients stay where they were recorded,
    and every replay writes over them."""

    device_type = "cpu"
    replays = 0

    def record(self, loss, tensors):
        static = [part.clone() for part in tensors]
        parameters = list(loss.parameters())
        value = torch.zeros(())
        gradients = [torch.zeros_like(parameter) for parameter in parameters]
        recorder = self

        class Graphed(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *inputs):
                recorder.replays += 1
                for place, given in zip(static, inputs, strict=False):
                    assert place.shape == given.shape and place.dtype == given.dtype
                    place.copy_(given)
                with torch.enable_grad():
                    ctx.loss = loss(*static)
                value.copy_(ctx.loss.detach())
                return value.detach()

            @staticmethod
            def backward(ctx, scale):
                for place, one in zip(gradients, torch.autograd.grad(ctx.loss, parameters, scale), strict=True):
                    place.copy_(one)
                return *[None] * len(static), *[place.detach() for place in gradients]

        return lambda *inputs: Graphed.apply(*inputs, *parameters)


def trained(callback, tmp_path, *overrides):
    """The weights after two short epochs, and what was logged."""
    fixed = ["trainer.max_epochs=2", "trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "logger=none"]
    fixed += ["callbacks=lean_loop"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["model.hidden_size=8", *fixed, *overrides])
    parts = build(cfg, str(tmp_path))
    parts.trainer.callbacks += [callback] if callback else []
    parts.trainer.fit(parts.module, datamodule=parts.datamodule)
    metrics = {name: float(value) for name, value in parts.trainer.callback_metrics.items()}
    return parts.module, metrics


@pytest.mark.parametrize(
    ("overrides", "replays"),
    [
        (["data=mackey_glass"], 11),
        (["data=mackey_glass", "memory=accumulate"], 11),
        (["data=mackey_glass", "trainer.accumulate_grad_batches=3"], 11),
        (["data=mackey_glass", "precision=bf16_mixed"], 11),
        (["data=mackey_glass", "model=zoneout_lstm", "model.hidden_size=8"], 11),
        (["data=mackey_glass", "optimizer=lbfgs", "gradient_clip=none"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_recorded_training_is_the_training(overrides, replays, tmp_path):
    plain, expected = trained(None, tmp_path, *overrides)
    recorder = LikeGraphs()
    recorded, found = trained(recorder, tmp_path, *overrides)
    assert recorder.replays == replays if replays else recorder.replays > 11
    assert found == expected
    for ours, theirs in zip(recorded.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert "training_loss" not in vars(recorded)


def test_other_shapes_run_as_they_are(tmp_path):
    """The last batch of an epoch is smaller, and is no replay."""
    recorder = LikeGraphs()
    trained(recorder, tmp_path, "data=mackey_glass", "data.batch_size=1000", "trainer.limit_train_batches=1.0")
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["data=mackey_glass", "data.batch_size=1000", "logger=none", "callbacks=none"])
    sizes = [len(batch.x) for batch in build(cfg, str(tmp_path)).datamodule.train_dataloader()]
    assert sizes[-1] < 1000
    assert recorder.replays == 2 * (len(sizes) - 1) - 1


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["optimizer=kfac"], "KFAC"),
        (["memory=recompute"], "memory option"),
        (["data=text", "memory=tbptt"], "memory option"),
    ],
    ids=str,
)
def test_what_cannot_be_recorded_is_refused(overrides, reason, tmp_path):
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question. " * 300)
    if "data=text" in overrides:
        overrides = [*overrides, f"data.path={tmp_path / 'a.txt'}", "task=language_modeling"]
    with pytest.raises(ConfigError, match=reason):
        trained(LikeGraphs(), tmp_path, *overrides)


def test_on_a_cpu_it_does_nothing(tmp_path):
    callback = CudaGraph()
    trained(callback, tmp_path, "data=mackey_glass")
    assert callback.recorded == 0


class FromHost(TorchDispatchMode):
    """Collects the operators that bring something from the host to the device of the training."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        devices = {one.device.type for one in tree_leaves(args) if isinstance(one, torch.Tensor)}
        results = {one.device.type for one in tree_leaves(out) if isinstance(one, torch.Tensor)}
        if "cpu" in devices and "meta" in devices | results:
            self.found.append(str(function))
        return out


class FromLists(TorchFunctionMode):
    """Collects the lists that stand for indices: on a GPU each is copied there, which waits for the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            self.found += [part for part in index if isinstance(part, list)]
        return function(*args, **(kwargs or {}))


TASKS = {
    "forecasting": (Forecasting, DataSpec("forecasting", 2, 2, 12, 4, 1, [0, 1]), (12, 2), (4, 2), torch.float),
    "one target": (Forecasting, DataSpec("forecasting", 2, 1, 12, 4, 1, [1]), (12, 2), (4, 1), torch.float),
    "classification": (Classification, DataSpec("classification", 2, 3), (12, 2), (), torch.long),
    "tagging": (Tagging, DataSpec("tagging", 2, 3), (12, 2), (12,), torch.long),
    "language": (LanguageModeling, DataSpec("language_modeling", 9, 9), (12,), (12,), torch.long),
    "polyphonic": (Polyphonic, DataSpec("polyphonic", 5, 5), (12, 5), (12, 5), torch.float),
}
MODELS = {
    "lstm": lambda size: LSTM(size, 8, 2, dropout=0.1),
    "bilstm": lambda size: LSTM(size, 8, bidirectional=True),
    "split": lambda size: SplitLSTM(size, 8, pad_to=16),
    "residual": lambda size: ResidualLSTM(size, 8),
    "awd": lambda size: AWDLSTM(size, 8),
    "layer norm": lambda size: LayerNormLSTM(size, 8),
    "zoneout": lambda size: ZoneoutLSTM(size, 8),
    "patch": lambda size: PatchLSTM(size, 8, segment_length=4),
}
UNEQUAL = ("classification", "tagging", "polyphonic")


def pairs():
    for task in TASKS:
        for model in MODELS:
            if (model == "patch") <= (task in ("forecasting", "one target")):
                yield task, model, False
                if task in UNEQUAL:
                    yield task, model, True


def test_pairs_are_many():
    assert len(list(pairs())) == 65


@pytest.mark.parametrize(("task", "model", "unequal"), list(pairs()))
def test_a_step_neither_waits_for_the_device_nor_copies_to_it(task, model, unequal):
    """On the meta device, which has no values to wait for: `.item()`, masks as indices and the like are errors."""
    make, spec, x, y, kind = TASKS[task]
    made = make(spec)
    module = LSTMModule(made, MODELS[model](made.input_size), torch.optim.Adam).to("meta")
    tokens = make is LanguageModeling
    batch = Batch(
        torch.empty(4, *x, dtype=torch.long if tokens else torch.float, device="meta"),
        torch.empty(4, *y, dtype=kind, device="meta"),
        torch.empty(4, dtype=torch.long, device="meta") if unequal else None,
    )
    with FromHost() as spy, FromLists() as lists:
        module.training_loss(batch).backward()
    assert spy.found == lists.found == []
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (lambda x: x[..., [1]], [[1]]),
        (lambda x: x[[0, 2]], [[0, 2]]),
        (lambda x: x[:, torch.tensor([1])], ["aten.index.Tensor"]),
        (lambda x: x.index_select(1, torch.zeros(1, dtype=torch.long, device="meta")), []),
    ],
)
def test_indices_from_the_host_are_seen(step, found):
    with FromHost() as spy, FromLists() as lists:
        step(torch.empty(4, 3, device="meta"))
    assert spy.found + lists.found == found
