"""Values of options and arguments, checked before anything is sent: a mistake is `invalid-input` that names its option."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from klinket.domain.address import ResourceAddress, parse_alias
from klinket.domain.api_token import MAX_DAYS
from klinket.domain.errors import InvalidInput
from klinket.domain.names import parse_name

#: Bytes of a certificate or public key file that are read at the most.
MAX_PEM_BYTES = 262_144
_AHEAD = re.compile(r"([0-9]{1,5})([hdw])", re.ASCII)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_TIME_HINT = "write 30d or 12h (from now), 2027-12-31 or 2027-12-31T12:00:00+01:00"


class Checked(click.ParamType[Any]):
    """A text that `parse` checks; what is wrong is told with the name of the option or argument."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text means; raises InvalidInput."""
        try:
            return self._parse(value) if isinstance(value, str) else value
        except InvalidInput as error:
            where = self.name if param is None else param.opts[0] if isinstance(param, click.Option) else param.make_metavar(ctx)  # type: ignore[arg-type]
            raise InvalidInput(where, error.message, hint=error.hint) from error


def _address(text: str) -> str:
    ResourceAddress.parse(text)
    return text


def _alias(text: str) -> str:
    if text:  # an empty one removes the alias
        parse_alias(text)
    return text


def later(text: str, now: float) -> str:
    """Return ISO 8601 in UTC for `30d`, `12h` (from now) or ISO 8601 (UTC where it says none); raises InvalidInput if past."""
    try:
        if ahead := _AHEAD.fullmatch(text.strip()):
            found = datetime.fromtimestamp(now, UTC) + timedelta(**{_UNITS[ahead[2]]: int(ahead[1])})
        else:
            found = datetime.fromisoformat(text.strip())
            found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("time", f"not a time: {text[:40]!r}", hint=_TIME_HINT) from error
    if found.timestamp() <= now:
        raise InvalidInput("time", f"{found.isoformat()} is past: access ends 1 hour to 1 year ahead", hint=_TIME_HINT)
    return found.isoformat()


def days(text: str) -> int:
    """Return the days of `30d`, `4w` or `30`; raises InvalidInput."""
    found = re.fullmatch(r"([0-9]{1,4})([dw]?)", text.strip(), re.ASCII)
    if found is None:
        raise InvalidInput("days", f"not a number of days: {text[:40]!r}", hint="write 30d or 4w")
    return int(found[1]) * (7 if found[2] == "w" else 1)


def tag(text: str) -> dict[str, str]:
    """Return the tag of `key=value`; raises InvalidInput."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise InvalidInput("tag", f"not key=value: {text[:40]!r}", hint="for example --tag team=payments")
    return {"key": key.strip(), "value": value.strip()}


def access_policy(text: str) -> dict[str, Any]:
    """Return the AccessPolicyInput of `manual`, `auto-lock:DAYS` or `access-request:HOURS`; raises InvalidInput."""
    word, colon, span = text.strip().lower().partition(":")
    hint = "manual, auto-lock:30d or access-request:8h"
    if word == "manual" and not colon:
        return {"mode": "MANUAL"}
    ahead = _AHEAD.fullmatch(span)
    if word not in ("auto-lock", "access-request") or ahead is None:
        raise InvalidInput("access-policy", f"not an access policy: {text[:40]!r}", hint=hint)
    seconds = timedelta(**{_UNITS[ahead[2]]: int(ahead[1])}).total_seconds()
    return {"mode": word.replace("-", "_").upper(), "durationSeconds": int(seconds)}


NAME = Checked("name", parse_name)
ADDRESS = Checked("address", _address)
ALIAS = Checked("alias", _alias)
LATER = Checked("time", lambda text: later(text, time.time()))
WITHIN_DAYS = Checked("days", days)
TAG = Checked("tag", tag)
ACCESS_POLICY = Checked("access-policy", access_policy)
#: Days until a key or token expires; 0: never.
DAYS = click.IntRange(0, MAX_DAYS)
#: A file to be written or read; tab completion lists files.
FILE = click.Path(dir_okay=False)


def read_pem(option: str, path: str) -> str:
    """Return the text of a PEM file; raises InvalidInput naming the option."""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_PEM_BYTES + 1)
        if len(raw) > MAX_PEM_BYTES:
            raise InvalidInput(option, f"{path} is larger than {MAX_PEM_BYTES} bytes", hint="give a PEM file")
        return raw.decode("ascii")
    except OSError as error:
        raise InvalidInput(option, f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(option, f"{path} is not PEM", hint="give the file that begins with -----BEGIN") from error
