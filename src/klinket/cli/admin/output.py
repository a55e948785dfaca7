"""Tables for people, JSON for scripts, and files for secrets."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from klinket.domain.errors import Conflict, InvalidInput
from klinket.domain.printable import escaped

#: The API's times, in UTC: milliseconds are all they have.
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?)(?:000)?\+00:00", re.ASCII)


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool, empty: str = "") -> None:
    """Print rows: as a JSON list, or as a table of `columns` (title -> key). `empty` says the next step."""
    if as_json:
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        click.echo(empty or "nothing there yet", err=True)
        return
    cells = [[_cell(row.get(key)) for key in columns.values()] for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:  # the client alone is installed
        for line in [list(columns), *cells]:
            click.echo("\t".join(line))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        table.add_column(title, overflow="fold")
    for line in cells:
        table.add_row(*line)
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)


def show_object(row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one object: as JSON, or as `name: value` lines."""
    if as_json:
        click.echo(json.dumps(row, indent=2))
        return
    named = {_label(key): value for key, value in row.items()}
    width = max(map(len, named))
    for label, value in named.items():
        click.echo(f"{label:<{width}}  {_cell(value)}")


def told(text: str, row: Mapping[str, Any] | None = None, *, as_json: bool) -> None:
    """Say what was done: a sentence on stderr for people, or `row` as JSON on stdout for scripts."""
    if as_json:
        click.echo(json.dumps(row if row is not None else {"ok": True}, indent=2))
    else:
        click.echo(escaped(text), err=True)


def reserve_secret(path: str) -> int:
    """Open `path` for a new secret, mode 0600, before the secret is made; raises Conflict when the file is there."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{path} is there already", hint="choose another --out: secrets are never written over") from error
    except FileNotFoundError as error:
        raise InvalidInput("--out", f"the folder of {path} does not exist", hint="make it, or choose another --out") from error
    except OSError as error:
        raise Conflict(f"cannot write {path}: {error.strerror}", hint="choose another --out") from error


def write_secret(descriptor: int, text: str) -> None:
    """Write and sync a reserved file."""
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def abandon_secret(descriptor: int, path: str) -> None:
    """Remove a reserved file when no secret was made."""
    os.close(descriptor)
    Path(path).unlink(missing_ok=True)


def print_secret(text: str) -> None:
    """Print a secret to stdout, and to stderr that it is shown this once."""
    sys.stdout.write(text + "\n")
    click.echo("this is the only time it is shown", err=True)


def _cell(value: Any) -> str:
    """Return a value as it is shown: what others have called themselves moves no cursor and breaks no line."""
    return escaped(_text(value))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "-"
    if isinstance(value, dict):
        return json.dumps(value)
    text = str(value)
    moment = _MOMENT.fullmatch(text)
    return f"{moment[1]}Z" if moment else text


def _label(key: str) -> str:
    """Return a field in words: `lastUsedAt` of the API, and `last_used_at` of klinket's own, are `last used at`."""
    return re.sub("(?<=[a-z0-9])[A-Z]", lambda found: f" {found[0].lower()}", key).replace("_", " ")
