"""What torch's profiler recorded, by operator and phase."""

import os
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEvent

MARK = "lstmopt."  # begins the name of a range that is a phase
RANGES = (MARK, "ProfilerStep", "Optimizer.step")  # not operators, they hold them
ALLOCATORS = ("aten::empty", "aten::resize_", "aten::zeros", "aten::new_")  # allocate for the operator that calls them
SYNCS_CPU = ("aten::_local_scalar_dense", "aten::nonzero")  # item, float, bool, tolist; x[mask]
SYNCS_CUDA = ("cudaStreamSynchronize",)  # these, and copies to the CPU


@dataclass
class Operator:
    """All calls of one operator in one phase, without what it called itself."""

    name: str
    phase: str
    calls: int = 0
    cpu_seconds: float = 0.0
    device_seconds: float = 0.0
    cpu_bytes: int = 0
    device_bytes: int = 0


class Recording:
    """The operators of some steps.

    Args:
        profile: torch's profiler, stopped; the phases are ranges in it whose names begin with `MARK`.
        steps: how many it recorded.

    Attributes:
        operators: by phase, the most costly first. What ran outside of all phases (validation) is left out.
    """

    def __init__(self, profile: torch.profiler.profile, steps: int) -> None:
        self.profile, self.steps = profile, steps
        events = [e for e in profile.events() or [] if e.device_type == torch.autograd.DeviceType.CPU]
        self.operators = sorted(_by_phase(events), key=lambda o: -(o.cpu_seconds + o.device_seconds))

    def syncs(self) -> dict[str, float]:
        """By phase: how often a step waits for a value of a tensor (GPU: for the device)."""
        names = SYNCS_CUDA if torch.cuda.is_initialized() else SYNCS_CPU
        found: dict[str, float] = {}
        for operator in self.operators:
            if operator.name in names:
                found[operator.phase] = found.get(operator.phase, 0.0) + operator.calls / self.steps
        return found

    def export(self, folder: Path, max_mb: float) -> tuple[Path | None, float]:
        """Write the trace for Perfetto and for TensorBoard's profiler plugin, and its size in MB.

        The plugin finds `<worker>.pt.trace.json.gz` in any folder below its log folder. A trace larger than `max_mb`
        is removed again; the path is None then.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"worker{os.environ.get('RANK', '0')}.pt.trace.json.gz"
        self.profile.export_chrome_trace(str(path))
        size = path.stat().st_size / 1e6
        if size > max_mb:
            path.unlink()
            return None, size
        return path, size


def _by_phase(events: list[FunctionEvent]) -> list[Operator]:
    ranges = sorted((e.time_range.start, e.time_range.end, e.name) for e in events if e.name.startswith(MARK))
    starts = [start for start, _, _ in ranges]
    found: dict[tuple[str, str], Operator] = {}
    for event in events:
        k = bisect_right(starts, event.time_range.start) - 1
        if k < 0 or event.time_range.start > ranges[k][1] or event.name.startswith(RANGES):
            continue
        phase = ranges[k][2].removeprefix(MARK)
        operator = found.setdefault((event.name, phase), Operator(event.name, phase))
        operator.calls += 1
        operator.cpu_seconds += event.self_cpu_time_total / 1e6
        operator.device_seconds += event.self_device_time_total / 1e6
        owner = _owner(event)
        operator = found.setdefault((owner, phase), Operator(owner, phase))
        operator.cpu_bytes += max(event.self_cpu_memory_usage, 0)
        operator.device_bytes += max(event.self_device_memory_usage, 0)
    return list(found.values())


def _owner(event: FunctionEvent) -> str:
    """The operator that an allocation is for."""
    caller = event
    while caller.name.startswith(ALLOCATORS) and caller.cpu_parent is not None:
        caller = caller.cpu_parent
    return event.name if caller.name.startswith(RANGES) else caller.name
