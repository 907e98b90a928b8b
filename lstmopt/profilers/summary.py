"""The readable part of a profile: facts and tables."""

import pytorch_lightning as pl
import torch

from lstmopt.flops import matmul_flops_per_second
from lstmopt.profilers.advice import Facts
from lstmopt.profilers.recording import Recording
from lstmopt.profilers.report import Table
from lstmopt.profilers.step_profile import StepProfile
from lstmopt.results import peak_memory_mb

TOP = 20
# the rows of the summary; clipping and the step itself are one
ROWS = {
    "data": ("data",),
    "forward": ("forward",),
    "backward": ("backward",),
    "optimizer": ("clip", "step"),
    "callbacks": ("callbacks",),
    "rest": ("rest",),
}


def timed_steps(profile: StepProfile) -> tuple[list[int], str]:
    """The steps whose time is told, and how they were taken: best without torch's profiler, and none of the first.

    Of every 8 the slowest is left out, in which something else had the processor.
    """
    later, earlier = profile.steps_of("time"), profile.steps_of("wait")[1:]
    recorded = profile.steps_of("record")
    if later or earlier:
        steps, how = max(later, earlier, key=len), "without torch's profiler"
    elif recorded:
        steps, how = recorded, "under torch's profiler, which slows them down"
    else:
        steps, how = list(range(len(profile.phases.steps))), "the first of the run, which are slow"
    steps = sorted(steps, key=lambda k: sum(profile.phases.steps[k].seconds.values()))
    left = steps[: len(steps) - -(-len(steps) // 8)] if len(steps) >= 4 else steps
    return left, f"of {len(steps)}, the slowest left out, {how}" if left != steps else how


def facts_of(profile: StepProfile, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Facts | None:
    """What the advice rests on; None where not one step was finished."""
    steps, _ = timed_steps(profile)
    if not steps:
        return None
    size = sum(profile.batch_sizes[k] for k in steps) / len(steps)
    dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(str(trainer.precision).split("-")[0], torch.float32)
    syncs: dict[str, float] = {}
    if profile.recording is not None:
        recorded = profile.steps_of("record")
        evaluations = sum(profile.phases.steps[k].evaluations for k in recorded) / len(recorded)
        syncs = {phase: n / max(evaluations, 1) for phase, n in profile.recording.syncs().items()}
    return Facts(
        seconds=profile.phases.seconds_per_phase(steps),
        batch_size=size,
        flops=(profile.flops_per_sample or 0.0) * size,
        matmul_flops_per_second=matmul_flops_per_second(pl_module.device, dtype),
        syncs=syncs,
        num_workers=getattr(trainer.train_dataloader, "num_workers", None),
    )


def phase_table(profile: StepProfile, facts: Facts) -> Table:
    """How a step's time is divided."""
    steps, how = timed_steps(profile)
    total = sum(facts.seconds.values())
    rows = [
        (name, f"{1e3 * sum(facts.seconds[p] for p in phases):.3f}", f"{facts.share(*phases):.1%}")
        for name, phases in ROWS.items()
    ]
    return Table(
        f"A step takes {1e3 * total:.3f} ms",
        ("phase", "ms", "share"),
        rows,
        f"Mean of {len(steps)} step{'s' if len(steps) != 1 else ''} {how}.",
    )


def computation_table(facts: Facts) -> Table:
    """Speed, and how much of the machine it is."""
    if not facts.flops:
        return Table("Computation", note="No matrix product was counted in the first step.")
    seconds = {"whole step": sum(facts.seconds.values()), "forward and backward": 0.0}
    seconds["forward and backward"] = facts.seconds["forward"] + facts.seconds["backward"]
    rows = [
        (name, f"{facts.flops / s / 1e9:.1f}", f"{facts.flops / s / facts.matmul_flops_per_second:.1%}")
        for name, s in seconds.items()
        if s
    ]
    return Table(
        "Computation",
        ("", "GFLOP/s", "utilisation"),
        rows,
        f"{facts.flops / 1e6:.1f} MFLOP in the matrix products of a step of {facts.batch_size:.0f} samples; a large"
        f" matrix product reaches {facts.matmul_flops_per_second / 1e9:.1f} GFLOP/s here.",
    )


def sync_table(recording: Recording) -> Table:
    """Where the host reads values of tensors."""
    syncs = recording.syncs()
    rows = [(phase, f"{n:.1f}") for phase, n in syncs.items()]
    note = "None." if not rows else "Those in clip and step are the optimizer's own; callbacks log now and then."
    return Table("Values of tensors read by the host", ("phase", "per step"), rows, note)


def operator_table(profile: StepProfile) -> Table:
    """The operators that take most time, without what they call."""
    recording = profile.recording
    if recording is None:
        return Table("Operators", note=_not_recorded(profile))
    on_device = any(operator.device_seconds for operator in recording.operators)
    total = sum(operator.cpu_seconds for operator in recording.operators) or 1e-9
    rows = []
    for o in recording.operators[:TOP]:
        cells = [o.name[:60], o.phase, f"{o.calls / recording.steps:.1f}"]
        cells += [f"{1e3 * o.cpu_seconds / recording.steps:.3f}", f"{o.cpu_seconds / total:.1%}"]
        cells += [f"{1e3 * o.device_seconds / recording.steps:.3f}"] if on_device else []
        rows.append(tuple(cells))
    columns = ("operator", "phase", "calls", "Self CPU ms", "share", *(["Self GPU ms"] if on_device else []))
    calls = sum(operator.calls for operator in recording.operators) / recording.steps
    note = f"Per step, mean of {recording.steps} recorded steps of {calls:.0f} operators."
    return Table("Operators", columns, rows, note)


def allocation_table(profile: StepProfile) -> Table:
    """The operators that allocate most memory."""
    recording = profile.recording
    if recording is None:
        return Table("Allocations", note=_not_recorded(profile))
    rows = []
    for o in sorted(recording.operators, key=lambda o: -(o.cpu_bytes + o.device_bytes))[:TOP]:
        allocated = (o.cpu_bytes + o.device_bytes) / recording.steps / 1e6
        if allocated >= 5e-4:
            rows.append((o.name[:60], o.phase, f"{o.calls / recording.steps:.1f}", f"{allocated:.3f}"))
    note = f"Per step, mean of {recording.steps} recorded steps; what is freed again within the step counts too."
    return Table("Allocations", ("operator", "phase", "calls", "MB"), rows, note)


def _not_recorded(profile: StepProfile) -> str:
    steps, skipped = len(profile.phases.steps), profile.before("record")
    return f"No operators: the run has {steps} steps, and recording begins after {skipped}."


def memory_table() -> Table:
    """Largest memory so far."""
    rows = [("largest resident memory of the process", f"{peak_memory_mb():.0f}")]
    if torch.cuda.is_initialized():
        rows.append(("largest memory allocated on the GPU", f"{torch.cuda.max_memory_allocated() / 1e6:.0f}"))
    return Table("Memory", ("", "MB"), rows)
