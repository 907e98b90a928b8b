"""Memory that is kept from step to step."""

import ctypes
import sys

import pytorch_lightning as pl

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST = 2**31 - 1


class KeepMemory(pl.Callback):
    """Let the C library keep what a step frees for the next step, instead of giving it back to the system.

    By default glibc takes arrays of more than 32 MB from the system anew each time, and every page of them is cleared
    at its first touch; a step on long sequences spends half its time on that. Without glibc, or on a GPU, nothing is
    done. When the training ends the memory is given back.

    Reference: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise both thresholds."""
        library = glibc()
        if library is not None and trainer.strategy.root_device.type == "cpu":
            library.mallopt(M_MMAP_THRESHOLD, LARGEST)
            library.mallopt(M_TRIM_THRESHOLD, LARGEST)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Back to the largest that glibc takes by itself, and give back what is free."""
        if stage == "fit":
            self._give_back()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """The same."""
        self._give_back()

    def _give_back(self) -> None:
        library = glibc()
        if library is not None:
            library.mallopt(M_MMAP_THRESHOLD, 2**25)
            library.mallopt(M_TRIM_THRESHOLD, 2**26)
            library.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
