"""Imports that take seconds. Imported at every start: nothing heavy here."""

import atexit
import gc
import importlib
import sys


def imported(name: str) -> None:
    """Import a module, if that has not been done, without looking for garbage meanwhile.

    torch and its like make some 400,000 objects that stay, and the collector goes through them again and again: for
    about a second while they are imported, for two before Python ends. What there is afterwards it leaves out for good
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
