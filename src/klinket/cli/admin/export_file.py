"""Writing an export to a file or to stdout, and reading one again."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

import click

from klinket.cli.admin.api import AdminApiClient
from klinket.domain.errors import InvalidInput
from klinket.wire.audit_export import MAX_LINE_BYTES

_GZIP = b"\x1f\x8b"


def fetch(api: AdminApiClient, path: str, *, format: str, begin: str | None, end: str | None, out: str | None) -> None:
    """Export to `out` (compressed when it ends with .gz), or to stdout. A file has its name only when it is whole."""
    asked = {"format": format, "from": begin, "to": end, "gzip": "true" if out is not None and out.endswith(".gz") else None}
    url = f"{path}?{urlencode({name: value for name, value in asked.items() if value is not None})}"
    if out is None:
        api.download(url, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return
    partial = Path(f"{out}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            api.download(url, file.write)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(out)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    click.echo(f"written to {out}", err=True)


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of an export, packed or not; one that is longer than any can be comes cut. Raises InvalidInput."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            if packed:
                with gzip.open(raw) as file:
                    yield from _lines(file)
            else:
                yield from _lines(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput("file", f"{path} is not a whole gzip file: {error}", hint="export again") from error
    except OSError as error:
        raise InvalidInput("file", f"cannot read {path}: {error.strerror}") from error


def _lines(file: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        yield line
