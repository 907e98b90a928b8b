"""What a signal does where no checkpoint has to be written first. Imported at every start: nothing heavy here."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # the last is what SLURM can be asked to send


class Stopped(SystemExit):
    """A signal asked the program to stop; the exit code is 143, or 130 for SIGINT.

    Args:
        signum: the signal's number.
    """

    def __init__(self, signum: int) -> None:
        self.signum = signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM
        super().__init__(128 + self.signum)


@contextmanager
def answered() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGUSR1 end the program at once, whatever it is at; one that is ignored stays so.

    `LastCheckpoint` answers them in the training. Unlike a KeyboardInterrupt or the SIGTERM that Lightning hears, which
    it ends with 1 and 0, a `Stopped` comes through everything to whoever knows how the run goes on.

    Raises:
        Stopped: one came.
    """
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    taken = {signum: handler for signum, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for signum in taken:
            signal.signal(signum, _stop)
        yield
    finally:
        for signum, handler in taken.items():
            signal.signal(signum, handler)


@contextmanager
def waiting() -> Iterator[None]:
    """The first of these signals has to wait for what is done here, as it must not be cut in two."""
    came: list[int] = []
    before = {signum: signal.signal(signum, lambda number, frame: came.append(number)) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(signum)
