"""Where the time of a step is counted, with a clock that only the parts of the step move."""

import pytest
import torch
from foreign import STEPS_PER_EPOCH, Foreign, loader, trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import SimpleProfiler

from lstmopt.profilers.phases import PHASES, Phases

COST = {"data": 1.0, "forward": 10.0, "backward": 100.0, "clip": 1e3, "step": 1e4, "callbacks": 1e5}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("lstmopt.profilers.phases.time.perf_counter", lambda: self.now)


class Timed(Foreign):
    """Every part of its step takes a time of its own."""

    def __init__(self, clock, make_optimizer=None):
        super().__init__(make_optimizer)
        self.clock, self.evaluations = clock, 0

    def training_step(self, batch, batch_idx):
        self.clock.now += COST["forward"]
        self.evaluations += 1
        return super().training_step(batch, batch_idx)

    def backward(self, loss, *args, **kwargs):
        self.clock.now += COST["backward"]
        super().backward(loss, *args, **kwargs)

    def validation_step(self, batch, batch_idx):
        self.clock.now += 1e9

    def on_train_epoch_end(self):
        self.clock.now += 1e9


class Slow(Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.clock.now += COST["clip"]

    def on_after_backward(self, trainer, pl_module):
        self.clock.now += COST["callbacks"] / 2

    def on_train_batch_end(self, *args):
        self.clock.now += COST["callbacks"] / 2

    def on_validation_start(self, *args):
        self.clock.now += 1e9


class SlowLoader:
    """Of unknown length, so that Lightning fetches ahead."""

    def __init__(self, clock):
        self.clock = clock

    def __iter__(self):
        for batch in loader():
            self.clock.now += COST["data"]
            yield batch


class Adam(torch.optim.Adam):
    clock: Clock

    def step(self, closure=None):
        loss = closure()
        self.clock.now += COST["step"]
        super().step()
        return loss


class Install(Callback):
    def __init__(self):
        self.marked = []

    def on_train_start(self, trainer, pl_module):
        self.phases = trainer.profiler = Phases(trainer.profiler)


def run(tmp_path, module, clock, epochs=2, **options):
    install = Install()
    done = trainer(tmp_path, install, Slow(clock), epochs=epochs, num_sanity_val_steps=0, **options)
    done.fit(module, SlowLoader(clock), loader())
    return install.phases.steps


def adam(clock):
    Adam.clock = clock
    return lambda parameters: Adam(parameters, lr=0.01)


def test_every_moment_is_in_one_phase(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    steps = run(tmp_path, Timed(clock, adam(clock)), clock)
    assert len(steps) == 2 * STEPS_PER_EPOCH
    for step in steps:
        expected = dict(COST, rest=0.0, data=step.seconds["data"])
        assert step.seconds == expected and step.evaluations == 1
    fetched_early = 1  # the run's first batch, before training starts
    assert sum(step.seconds["data"] for step in steps) == (2 * STEPS_PER_EPOCH - fetched_early) * COST["data"]


def test_accumulated_gradients(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    steps = run(tmp_path, Timed(clock, adam(clock)), clock, accumulate_grad_batches=2)
    for phase in ("clip", "step"):
        cost = COST[phase]  # the epoch's last batch steps in any case
        assert [step.seconds[phase] for step in steps[:STEPS_PER_EPOCH]] == [0, cost, 0, cost, cost]
    assert {step.seconds["forward"] for step in steps} == {COST["forward"]}
    assert {step.seconds["backward"] for step in steps} == {COST["backward"]}


def test_a_closure_that_is_called_again_and_again(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    module = Timed(clock, lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=4))
    steps = run(tmp_path, module, clock, epochs=1)
    assert sum(step.evaluations for step in steps) == module.evaluations > 2 * STEPS_PER_EPOCH
    for step in steps:
        for phase in ("forward", "backward", "clip"):
            assert step.seconds[phase] == step.evaluations * COST[phase]
        assert step.seconds["callbacks"] == (step.evaluations + 1) * COST["callbacks"] / 2
        assert step.seconds["step"] == step.seconds["rest"] == 0  # this optimizer does not move the clock


def test_manual_optimization(tmp_path, monkeypatch):
    clock = Clock(monkeypatch)

    class Manual(Timed):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            self.manual_backward(super().training_step(batch, batch_idx))
            self.clock.now += COST["forward"]
            optimizer.step(lambda: None)
            optimizer.zero_grad()

    steps = run(tmp_path, Manual(clock, adam(clock)), clock)
    for step in steps:
        assert step.seconds == dict(COST, rest=0.0, data=step.seconds["data"], forward=2 * COST["forward"])


def test_seconds_per_phase_is_a_mean(monkeypatch):
    from lstmopt.profilers.phases import Step

    phases = Phases(SimpleProfiler())
    phases.steps = [Step(dict.fromkeys(PHASES, float(k)), 1) for k in (7, 1, 3)]
    assert phases.seconds_per_phase([1, 2]) == dict.fromkeys(PHASES, 2.0)


def test_the_profiler_that_was_there_is_told_everything(tmp_path, monkeypatch):
    clock, theirs = Clock(monkeypatch), SimpleProfiler()
    run(tmp_path, Timed(clock, adam(clock)), clock, epochs=1, profiler=theirs)
    assert len(theirs.recorded_durations["run_training_batch"]) == STEPS_PER_EPOCH
    assert len(theirs.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"]) == STEPS_PER_EPOCH
    assert not theirs.current_actions


@pytest.mark.parametrize("breaks_in", ["training_step", "backward", "on_train_batch_end"])
def test_marks_are_left_when_the_training_breaks(breaks_in, tmp_path):
    told = []

    class Mark:
        def __init__(self, phase):
            self.phase = phase

        def __enter__(self):
            told.append(("in", self.phase))

        def __exit__(self, *args):
            told.append(("out", self.phase))

    class Marks(Install):
        def on_train_start(self, trainer, pl_module):
            self.phases = trainer.profiler = Phases(trainer.profiler, Mark)

        def on_exception(self, trainer, pl_module, exception):
            self.phases.close()

    def broken(self, *args, **kwargs):
        raise RuntimeError("broken")

    module = type("Broken", (Foreign,), {breaks_in: broken})()
    marks = Marks()
    with pytest.raises(RuntimeError, match="broken"):
        trainer(tmp_path, marks).fit(module, loader())
    for (way, phase), (back, same) in zip(told[::2], told[1::2], strict=True):
        assert (way, back) == ("in", "out") and phase == same
    assert marks.phases.steps == []
