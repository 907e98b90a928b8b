"""The mistakes a user can make, each told in one message (exit code 2)."""

import re


class UserError(Exception):
    """A mistake of the user: what is wrong and what to type instead.

    Args:
        problem: one sentence that names the thing that is wrong.
        hint: what to type or do instead.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.hint}" if self.hint else self.problem

    def __reduce__(self) -> tuple[type["UserError"], tuple[str, str]]:
        return type(self), (self.problem, self.hint)


class ConfigError(UserError):
    """The configuration cannot work."""


class DataError(UserError):
    """A data file is missing or not usable."""


class CheckpointError(UserError):
    """A checkpoint is missing or does not fit the run."""


class Pruned(Exception):
    """A trial of a search that is not worth going on with; no error."""


class Interrupted(Exception):
    """A signal asked the run to stop, after `last.ckpt` was saved where that is kept.

    Args:
        signum: the signal's number; the exit code is 128 + signum.
        hint: how it goes on.
    """

    def __init__(self, signum: int, hint: str = "hydra.run.dir=FOLDER of this run goes on from here") -> None:
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
        self.hint = hint

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        return type(self), (self.signum, self.hint)


class LostProcess(RuntimeError):
    """One of the processes that train together was killed."""


def lost_worker(error: BaseException) -> str | None:
    """The message for another process of the run that was killed, one of `loader=workers` or of `trainer=ddp`; None
    for any other error.

    torch raises its `RuntimeError` wherever the training process is when it hears of it.
    """
    found = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(error), re.S)
    if isinstance(error, LostProcess):
        return f"{error}\n  hydra.run.dir=FOLDER of this run goes on from last.ckpt"
    if not isinstance(error, RuntimeError) or not found:
        return None
    pids, how = found[1], found[2].splitlines()[0].rstrip(". ")
    return (
        f"DataLoader worker {pids} {how}: most often the machine, or a container's /dev/shm, is out of memory\n"
        "  type loader=resident or fewer loader.num_workers; hydra.run.dir=FOLDER of this run goes on from last.ckpt"
    )
