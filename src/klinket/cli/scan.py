"""`klinket scan`: find service keys and tokens that lie where they should not."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from klinket.cli import roles
from klinket.domain.printable import escaped

#: Bytes of a file that are looked at; a larger one is named and left out.
MAX_FILE_BYTES = 64 * 1024 * 1024
#: As grep has it, turned around: 0 is clean.
FOUND = 1


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH|-...")
@roles.JSON_OPTION
def scan(paths: tuple[str, ...], as_json: bool) -> None:
    """Find service key files and klinket's tokens below PATHs (`-`: standard input).

    Ends with 0 when there are none and with 1 when there are. What is found is named, never printed: a service key by its key
    id, a token by its first characters.

    \b
    example: klinket scan . && git commit
             git log -p | klinket scan -
    """
    from klinket.wire.leak import find_secrets

    rows = []
    files = 0
    for name, text in _texts(paths):
        files += 1
        rows += [{"file": name, "line": one.line, "kind": one.kind, "id": one.id} for one in find_secrets(text)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            click.echo(escaped(f"{row['file']}:{row['line']}: {row['kind']} {row['id']}"))
        click.echo(f"{len(rows)} found in {files} files" if rows else f"nothing found in {files} files", err=True)
        if any(row["kind"] == "service key" for row in rows):
            click.echo("end a service key at once: klinket revoke --key-file FILE", err=True)
    sys.exit(FOUND if rows else 0)


def _texts(paths: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for given in paths:
        if given == "-":
            yield "-", sys.stdin.buffer.read(MAX_FILE_BYTES).decode("utf-8", "replace")
            continue
        if not Path(given).exists():
            raise click.BadParameter(f"{given} does not exist")
        for path in _files(Path(given)):
            text = _read(path)
            if text is not None:
                yield str(path), text


def _files(top: Path) -> Iterator[Path]:
    if not top.is_dir():
        yield top
        return
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def _read(path: Path) -> str | None:
    """Return a regular file as text; None for links, devices, and what cannot be read, which is said."""
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode):
            return None
        if facts.st_size > MAX_FILE_BYTES:
            click.echo(escaped(f"{path}: larger than {MAX_FILE_BYTES} bytes, left out"), err=True)
            return None
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        click.echo(escaped(f"{path}: {error.strerror}, left out"), err=True)
        return None
