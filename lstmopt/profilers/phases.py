"""The phases of a training step, and how long each takes."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from pytorch_lightning.profilers import Profiler

PHASES = ("data", "forward", "backward", "clip", "step", "callbacks", "rest")
HOOKS = {
    "train_dataloader_next": "data",
    "batch_to_device": "data",
    "on_before_batch_transfer": "data",
    "on_after_batch_transfer": "data",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_zero_grad": "backward",
    "on_before_optimizer_step": "clip",
    "configure_gradient_clipping": "clip",
    "optimizer_step": "step",
    "lr_scheduler_step": "step",
}
OUTSIDE = ("on_validation", "val_next", "on_train_epoch_end", "on_train_end")


class Step(NamedTuple):
    """What one step took: seconds by phase, and how often the loss was evaluated (closures: more than once)."""

    seconds: dict[str, float]
    evaluations: int


class Phases(Profiler):
    """A Lightning profiler that divides every training step into phases, each moment in exactly one of them.

    Lightning tells its profiler the begin and the end of everything that it calls, and they are nested: the closure
    runs forward and backward inside the optimizer's step, L-BFGS several times. The innermost one that belongs to a
    phase counts, so `step` is what the optimizer itself takes, and `rest` what nothing else accounts for. A step is one
    batch, from the request for it to the request for the next one; with accumulated gradients some have no `clip`
    and no `step`. Validation and what happens between epochs is no part of any step.

    Args:
        inner: the profiler that was there before; it is told everything as well.
        mark: makes the context that is entered for the length of a phase.

    Attributes:
        steps: the finished ones.
        step_ended: called after each.
        synchronize: wait for the GPU at the end of each phase, so that its kernels count where they were launched.
    """

    def __init__(self, inner: Profiler, mark: Callable[[str], AbstractContextManager] = nullcontext) -> None:
        super().__init__()
        self.inner, self.mark = inner, mark
        self.steps: list[Step] = []
        self.step_ended: Callable[[], None] | None = None
        self.synchronize = torch.cuda.is_initialized()
        self._open: list[tuple[str, str | None]] = []  # hook and phase of all that has begun
        self._seconds: dict[str, float] | None = None  # of the step under way
        self._evaluations = 0
        self._trained = self._stepping = False
        self._closed = False
        self._phase: str | None = None
        self._since = 0.0
        self._context: AbstractContextManager | None = None

    def start(self, action_name: str) -> None:
        """Lightning begins something."""
        self.inner.start(action_name)
        hook = action_name.rsplit(".", 1)[-1]
        if hook == "train_dataloader_next" or hook.startswith(OUTSIDE):
            self._end_step()
        if hook == "train_dataloader_next" and self._seconds is None and not self._closed:
            self._seconds, self._evaluations, self._stepping = dict.fromkeys(PHASES, 0.0), 0, False
        self._trained = self._trained or hook == "run_training_batch"
        phase = HOOKS.get(hook)
        if phase is None and (action_name.startswith("[Callback]") or hook.startswith("on_")):
            phase = "callbacks"
        if phase == "forward":
            self._evaluations += 1
            self._stepping = False
        self._open.append((action_name, phase))
        self._switch()

    def stop(self, action_name: str) -> None:
        """And ends it."""
        if self._open:
            self._open.pop()
        hook = action_name.rsplit(".", 1)[-1]
        if hook == "configure_gradient_clipping":
            self._stepping = True  # the closure is done, the optimizer goes on
        if self._open and self._open[-1][0].endswith("training_step"):  # manual optimization calls backward in there
            if hook == "on_before_backward":
                self._open[-1] = (self._open[-1][0], "backward")
            elif hook == "on_after_backward":
                self._open[-1] = (self._open[-1][0], "forward")
        self._switch()
        self.inner.stop(action_name)

    def close(self) -> None:
        """Count no more; a step that has begun is forgotten, and its phase left."""
        self._closed = True
        self._enter(None)
        self._seconds = None

    def seconds_per_phase(self, steps: list[int]) -> dict[str, float]:
        """Mean seconds by phase over some of the steps, given by their numbers."""
        return {phase: sum(self.steps[k].seconds[phase] for k in steps) / len(steps) for phase in PHASES}

    def _end_step(self) -> None:
        if self._seconds is None or not self._trained:  # a loader of unknown length is asked once more than it gives
            return
        self._enter(None)
        self.steps.append(Step(self._seconds, self._evaluations))
        self._seconds, self._trained = None, False
        if self.step_ended is not None:
            self.step_ended()

    def _switch(self) -> None:
        if self._seconds is None:
            return
        action, phase = next((pair for pair in reversed(self._open) if pair[1]), ("", "rest"))
        if phase == "step" and action.startswith("[LightningModule]") and not self._stepping:
            phase = "rest"  # Lightning's own way into the closure and out of it
        if phase != self._phase:
            self._enter(phase)

    def _enter(self, phase: str | None) -> None:
        if self.synchronize:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._seconds is not None and self._phase is not None:
            self._seconds[self._phase] += now - self._since
        context, self._context = self._context, None
        if context is not None:
            context.__exit__(None, None, None)
        self._phase = phase
        if phase is not None:
            self._context = self.mark(phase)
            self._context.__enter__()
        self._since = time.perf_counter() if context or self._context else now
