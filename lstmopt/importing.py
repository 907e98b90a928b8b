"""Imports that take seconds. Imported at every start: nothing heavy here."""

import atexit
import gc
import importlib
import sys


def imported(name: str) -> None:
    """Import a module, if that has not been done, without looking for garbage meanwhile.

    torch and its like make hundreds of thousands of objects that stay, and the collector would go through them again
    and again while they are imported, and once more before Python ends. What there is afterwards it leaves out for good
    (`gc.freeze`), and what there is at the end.
    """
    if name in sys.modules:
        return
    collects = gc.isenabled()
    gc.disable()
    try:
        importlib.import_module(name)
    finally:
        gc.freeze()
        atexit.register(gc.freeze)
        if collects:
            gc.enable()
