"""What holds a training up, by rules over measured facts."""

from dataclasses import dataclass, field

NONE = "No bottleneck stands out."
DATA_SHARE = 0.3
CALLBACKS_SHARE = 0.3
# of what a matrix product reaches: a batch up to this size (samples) that stays below it leaves the machine idle
TINY = ((8, 0.25), (32, 0.1))


@dataclass
class Facts:
    """What is known of a step.

    Attributes:
        seconds: by phase.
        batch_size: samples in it.
        flops: operations of forward and backward; 0: not known.
        matmul_flops_per_second: what a matrix product reaches on this machine.
        syncs: by phase, how often it waits for the value of a tensor, per evaluation of the loss.
        num_workers: processes of the loader; None: not known.
    """

    seconds: dict[str, float]
    batch_size: float = 0.0
    flops: float = 0.0
    matmul_flops_per_second: float = 0.0
    syncs: dict[str, float] = field(default_factory=dict)
    num_workers: int | None = None

    def share(self, *phases: str) -> float:
        """Of the step's time."""
        return sum(self.seconds[phase] for phase in phases) / (sum(self.seconds.values()) or 1e-9)

    @property
    def utilisation(self) -> float | None:
        """Speed of forward, backward and optimizer over that of a matrix product; None where it is not known."""
        seconds = sum(self.seconds[phase] for phase in ("forward", "backward", "clip", "step"))
        if not (self.flops and self.matmul_flops_per_second and seconds):
            return None
        return self.flops / seconds / self.matmul_flops_per_second


def advice(facts: Facts) -> list[str]:
    """The bottlenecks, each with what to do about it; one line that says so where there is none."""
    rules = (_slow_loader, _host_syncs, _tiny_batch, _callbacks)
    return [line for line in (rule(facts) for rule in rules) if line] or [NONE]


def _slow_loader(facts: Facts) -> str:
    share = facts.share("data")
    if share < DATA_SHARE:
        return ""
    more = "more of them (loader.num_workers)" if facts.num_workers else "loader=workers"
    return (
        f"Bottleneck: slow loader. {share:.0%} of a step is spent waiting for data. Try {more}, or loader=resident if"
        " the data fit into memory."
    )


def _host_syncs(facts: Facts) -> str:
    """Only what the training step itself does; clipping, optimizers and progress bars read values on purpose."""
    found = facts.syncs.get("forward", 0.0) + facts.syncs.get("backward", 0.0)
    if found < 1:
        return ""
    return (
        f"Bottleneck: host sync. Every step reads {found:.0f} value{'s' if found >= 1.5 else ''} of tensors in forward"
        " or backward (item, float, bool, x[mask], cpu), and a GPU has to be waited for each time. Keep tensors, use"
        " detach, and read values only when they are logged."
    )


def _tiny_batch(facts: Facts) -> str:
    used = facts.utilisation
    if used is None or not any(facts.batch_size <= size and used < limit for size, limit in TINY):
        return ""
    return (
        f"Bottleneck: tiny batch. A batch of {facts.batch_size:.0f} uses {used:.1%} of the speed of a matrix product:"
        " the step's time is that of starting small operators. Try a larger data.batch_size."
    )


def _callbacks(facts: Facts) -> str:
    share = facts.share("callbacks")
    if share < CALLBACKS_SHARE:
        return ""
    return (
        f"Bottleneck: callbacks. They and logging take {share:.0%} of a step; profiler=simple names them. Try fewer, or"
        " a larger trainer.log_every_n_steps."
    )
