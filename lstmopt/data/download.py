"""Public data sets: from `data.root`, or from their official home."""

import hashlib
import os
import tempfile
import urllib.request
from pathlib import Path

from lstmopt.errors import DataError


def fetch(root: str, name: str, url: str, sha256: str) -> Path:
    """The file `root/name`; downloaded from its official home where it is not there yet.

    Args:
        root: folder of all data sets.
        name: the file's place in it.
        url: where it comes from.
        sha256: checksum of the right file, in hexadecimal.

    Raises:
        DataError: it is not there and cannot be downloaded, or what was downloaded is another file.
    """
    path = Path(root) / name
    if path.is_file():
        return path
    part = None
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() == sha256:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(part, path)
            return path
        why = "what came from there is another file"
    except OSError as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        why = f"the download failed ({getattr(error, 'reason', error)})"
    raise DataError(
        f"there is no {path.name} in {path.parent.absolute()}, and {why}",
        f"put the file there from {url}, or type data.root=FOLDER that holds {name}",
    )
