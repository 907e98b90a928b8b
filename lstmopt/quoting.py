"""Texts as Hydra's grammar reads them. Imported at every start: nothing heavy here."""

import os
import re


def quoted(text: str) -> str:
    """A text in quotes, whatever stands in it: of backslashes only those before a quote are doubled."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text) + '"'


def search_path(folder: str) -> str:
    """The override that stands for `--config-dir FOLDER`."""
    return f"hydra.searchpath=[{quoted('file://' + os.path.abspath(folder))}]"
