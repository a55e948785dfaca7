"""Files with secrets or state, replaced as a whole: a reader, or a machine that loses power, sees the old or the new content."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole, durable when this returns; `mode` holds from the first byte. Blocks; raises OSError.

    On failure the file keeps its old content and nothing is left beside it.
    """
    # A name of its own: two writers at once do not write into one file; the last one wins as a whole.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, mode)  # mkstemp made it 0600
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable as well."""
    if os.name == "nt":
        return  # a folder cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
