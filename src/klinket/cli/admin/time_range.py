"""Times on the command line: `--from` and `--to`, a moment or how long ago."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from klinket.domain.errors import InvalidInput

_AGO = re.compile(r"([0-9]{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_F = TypeVar("_F", bound=Callable[..., Any])


def moment(option: str, text: str | None, now: float) -> str | None:
    """Return ISO 8601 in UTC for `24h`, `7d` (ago) or ISO 8601, whose offset is UTC where it has none; raises InvalidInput."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text.strip()):
            found = datetime.fromtimestamp(now, UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            found = datetime.fromisoformat(text.strip())
            found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            option, f"not a time: {text[:40]!r}", hint="write 24h, 7d, 2026-12-31 or 2026-12-31T12:00:00+01:00"
        ) from error
    return found.isoformat()


def with_time_range(command: _F) -> _F:
    """Give a command `begin` and `end`, ISO 8601 in UTC or None, with their options."""

    def parsed(_: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
        return moment(parameter.opts[0].lstrip("-"), text, time.time())

    command = click.option("--to", "end", metavar="TIME", callback=parsed, help="Before this moment; same forms.")(command)
    return click.option(
        "--from", "begin", metavar="TIME", callback=parsed, help="From this moment on: 24h or 7d (ago), or ISO 8601."
    )(command)
