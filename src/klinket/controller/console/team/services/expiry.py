"""How long: choices of forms for keys (days) and for access (until when)."""

from __future__ import annotations

from datetime import UTC, datetime

from klinket.controller.console.form import Form
from klinket.domain.errors import InvalidInput
from klinket.domain.service_key import DEFAULT_DAYS

HOUR_MS = 3_600_000
OTHER = "other"
NEVER = "0"
#: Days of a new key, as people read them.
KEY_PRESETS = {"30": "30 days", "90": "90 days", "365": "365 days", NEVER: "Never expires"}
KEY_DEFAULT = str(DEFAULT_DAYS)
#: Hours of access.
ACCESS_PRESETS = {"": "No end", "24": "24 hours", "168": "7 days", "720": "30 days", "2160": "90 days"}


def key_days(form: Form) -> int:
    """Return the days a key lives, 0: for ever; raises InvalidInput. A form that says nothing means the default."""
    chosen = form.text("days", KEY_DEFAULT)
    if chosen == OTHER:
        return form.number("expirationTime")
    if chosen not in KEY_PRESETS:
        raise InvalidInput("expirationTime", "choose how long the key lives")
    return int(chosen)


def access_end(form: Form, now_ms: int) -> int | None:
    """Return when access ends in milliseconds since the epoch, None: not by itself; raises InvalidInput."""
    chosen = form.text("ends")
    if chosen != OTHER:
        if chosen not in ACCESS_PRESETS:
            raise InvalidInput("expiresAt", "choose until when access lasts")
        return now_ms + int(chosen) * HOUR_MS if chosen else None
    text = form.text("expiresAt")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput("expiresAt", "this is not a date and time", hint="for example 2027-03-31T18:00") from error
    return round((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def as_input(ms: int | None) -> str:
    """Return a moment as a field of date and time shows it, in UTC."""
    return "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M")
