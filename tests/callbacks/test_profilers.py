"""The profilers in a plain Trainer, with a module that knows nothing of lstmopt."""

import gzip
import json
import pickle
import time

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, fit, loader, trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lstmopt.callbacks.bottleneck import Bottleneck
from lstmopt.callbacks.memory_profile import MemoryProfile
from lstmopt.callbacks.nsight import Nsight
from lstmopt.callbacks.profiler import Profiler
from lstmopt.callbacks.pytorch_profile import PyTorchProfile
from lstmopt.callbacks.simple_profile import SimpleProfile
from lstmopt.errors import ConfigError

KINDS = {
    "simple": (SimpleProfile, "summary.txt", {}),
    "pytorch": (PyTorchProfile, "summary.txt", {"wait": 1, "warmup": 1, "active": 2, "timed": 2}),
    "memory": (MemoryProfile, "memory.txt", {"wait": 1, "warmup": 1, "active": 2}),
    "bottleneck": (Bottleneck, "bottleneck.txt", {"wait": 1, "warmup": 1, "active": 2, "timed": 2}),
}
SHOWS = {
    "simple": ("run_training_batch",),
    "pytorch": ("data", "forward", "backward", "optimizer", "callbacks", "rest", "Self CPU", "GFLOP/s", "resident"),
    "memory": ("parameters", "gradients", "optimizer", "kept", "estimate", "Allocations", "process MB"),
    "bottleneck": ("forward", "Python functions", "training_step", "Self CPU", "Allocations", "resident"),
}


def profiler_is_free():
    with torch.profiler.profile() as profile:
        torch.ones(2).sum()
    return any(event.name == "aten::sum" for event in profile.events())


def test_profilers_by_name():
    for kind, (cls, _, options) in KINDS.items():
        assert type(Profiler(kind, **options)) is cls
    assert type(Profiler("nsight")) is Nsight and type(Profiler()) is PyTorchProfile
    with pytest.raises(ConfigError, match="bottleneck"):
        Profiler("fast")
    with pytest.raises(ConfigError, match="0 steps"):
        Profiler("pytorch", active=0)
    with pytest.raises(TypeError):
        Profiler("simple", wait=1)


@pytest.mark.parametrize("make_logger", [TensorBoardLogger, CSVLogger, lambda folder: False])
@pytest.mark.parametrize("kind", KINDS)
def test_profile_is_written(kind, make_logger, tmp_path):
    _, file, options = KINDS[kind]
    _, run = fit(tmp_path, Profiler(kind, **options), logger=make_logger(tmp_path))
    text = (tmp_path / "profile" / file).read_text()
    for word in SHOWS[kind]:
        assert word in text, word
    if kind != "simple":
        assert "mkldnn_rnn_layer" in text or "lstm" in text
    if make_logger is TensorBoardLogger:
        events = EventAccumulator(run.logger.log_dir).Reload()
        (tag,) = events.Tags()["tensors"]
        shown = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        assert [line[4:] for line in shown.splitlines()] == text.rstrip().splitlines()
        if kind == "pytorch":
            names = ("data", "forward", "backward", "optimizer", "callbacks", "rest")
            shares = [events.Scalars(f"profile/{name}")[0].value for name in names]
            assert sum(shares) == pytest.approx(1)
    assert profiler_is_free()


def test_trace_is_where_perfetto_and_tensorboard_find_it(tmp_path):
    _, run = fit(tmp_path, PyTorchProfile(1, 1, 2, 0), logger=TensorBoardLogger(tmp_path))
    (path,) = tmp_path.rglob("*.pt.trace.json.gz")
    assert path.is_relative_to(run.logger.log_dir) and path.stat().st_size < 50e6
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sum(name.startswith("ProfilerStep") for name in names) >= 2
    assert names.count("lstmopt.forward") == 2 <= names.count("lstmopt.backward")


def test_a_trace_that_is_too_large_is_not_kept(tmp_path):
    fit(tmp_path, PyTorchProfile(1, 1, 4, 0, max_mb=1e-3))
    assert not list(tmp_path.rglob("*.trace.json.gz"))
    text = (tmp_path / "profile" / "summary.txt").read_text()
    assert "Not kept: 4 steps have" in text and "profiler.max_mb=" in text


@pytest.mark.parametrize("kind", ["pytorch", "memory", "bottleneck"])
def test_profile_of_a_run_shorter_than_its_schedule(kind, tmp_path):
    cls, file, _ = KINDS[kind]
    fit(tmp_path, cls(wait=100))
    text = (tmp_path / "profile" / file).read_text()
    assert f"the run has {2 * STEPS_PER_EPOCH} steps, and recording begins after 10" in text


@pytest.mark.parametrize("kind", KINDS)
def test_profile_of_a_broken_run(kind, tmp_path):
    class Breaks(Foreign):
        def training_step(self, batch, batch_idx):
            if self.global_step == 4:
                raise RuntimeError("broken")
            return super().training_step(batch, batch_idx)

    cls, file, options = KINDS[kind]
    profiler = cls(**(options | {"wait": 0, "warmup": 0, "active": 3} if options else {}))
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, profiler, module=Breaks())
    text = (tmp_path / "profile" / file).read_text()
    shown = {"simple": "run_training_batch", "memory": "aten::mkldnn_rnn_layer"}.get(kind, "Self CPU")
    assert shown in text
    assert profiler_is_free()
    fit(tmp_path, profiler)  # and once more


def test_a_run_that_breaks_at_once_leaves_nothing_behind(tmp_path):
    class Breaks(Foreign):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, PyTorchProfile(wait=0, warmup=0), module=Breaks())
    assert "No step was finished." in (tmp_path / "profile" / "summary.txt").read_text()
    assert profiler_is_free()


def test_validation_is_no_part_of_a_profiled_step(tmp_path):
    class SlowValidation(Foreign):
        def validation_step(self, batch, batch_idx):
            self.trainer.strategy.clock += 1000
            torch.linalg.svd(torch.ones(3, 3))
            super().validation_step(batch, batch_idx)

    profiler = PyTorchProfile(wait=1, warmup=1, active=8, timed=2)
    with pytest.MonkeyPatch.context() as patch:
        real, slow = time.perf_counter, SlowValidation()
        run = trainer(tmp_path, profiler, epochs=3)
        run.strategy.clock = 0
        patch.setattr("lstmopt.profilers.phases.time.perf_counter", lambda: real() + run.strategy.clock)
        run.fit(slow, loader(), loader())
    assert run.strategy.clock > 0
    assert len(profiler.phases.steps) == 12
    assert max(seconds for step in profiler.phases.steps for seconds in step.seconds.values()) < 1000
    text = (tmp_path / "profile" / "summary.txt").read_text()
    assert "svd" not in text and "A step takes" in text


@pytest.mark.parametrize("kind", ["pytorch", "memory", "bottleneck"])
@pytest.mark.parametrize("how", ["accumulated", "closure"])
def test_steps_of_another_kind(kind, how, tmp_path):
    cls, file, options = KINDS[kind]
    module = Foreign(lambda p: torch.optim.LBFGS(p, max_iter=3)) if how == "closure" else Foreign()
    fit(tmp_path, cls(**options), module=module, accumulate_grad_batches=2 if how == "accumulated" else 1)
    assert all(word in (tmp_path / "profile" / file).read_text() for word in SHOWS[kind])


@pytest.mark.parametrize("kind", [*KINDS, "nsight"])
def test_a_profiler_can_be_sent_to_another_process(kind, tmp_path):
    assert type(pickle.loads(pickle.dumps(Profiler(kind)))) is type(Profiler(kind))


def test_training_is_the_same_with_and_without(tmp_path):
    plain, _ = fit(tmp_path)
    for kind, (cls, _, options) in KINDS.items():
        profiled, _ = fit(tmp_path, cls(**options))
        for a, b in zip(profiled.parameters(), plain.parameters(), strict=True):
            assert torch.equal(a, b), kind
