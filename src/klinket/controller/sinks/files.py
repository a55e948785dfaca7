"""JSON lines in a rotating file, or on standard output: any log shipper reads these."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from klinket.controller.app.sinks import Batch

#: Bytes after which a file is rotated, and rotated files that are kept, unless options say otherwise.
DEFAULT_FILE_BYTES = 100 * 1024 * 1024
DEFAULT_KEPT_FILES = 10


def _lines(batch: Batch) -> bytes:
    return b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in batch.events)


def deliver_to_stdout(batch: Batch) -> None:
    """Write a batch to standard output; raises OSError."""
    sys.stdout.buffer.write(_lines(batch))
    sys.stdout.buffer.flush()


def deliver_to_file(batch: Batch) -> None:
    """Append a batch to the file, durable before it counts as delivered; raises OSError.

    A crash between writing and noting it repeats the batch: events carry their number.
    """
    settings = batch.sink.settings
    path, limit, kept = Path(settings["path"]), int(settings["max_bytes"]), int(settings["kept_files"])
    content = _lines(batch)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = 0
    if size and size + len(content) > limit:
        _rotate(path, kept)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rotate(path: Path, kept: int) -> None:
    for number in range(kept, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.rename(older)
