"""Texts as Hydra's grammar reads them. Imported at every start: nothing heavy here."""

import re


def quoted(text: str) -> str:
    """A text in quotes, whatever stands in it: of backslashes only those before a quote are doubled."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), text) + '"'
