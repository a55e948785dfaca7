"""What the address of a list asks for: a time range, a place in it, and addresses that ask for a little else."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from klinket.controller.app.ports import Position
from klinket.controller.console.page import Page

HOUR_MS = 3_600_000
#: Time ranges by their word: what people read, and milliseconds back from now.
RANGES: dict[str, tuple[str, int]] = {
    "1h": ("Last hour", HOUR_MS),
    "24h": ("Last 24 hours", 24 * HOUR_MS),
    "7d": ("Last 7 days", 7 * 24 * HOUR_MS),
    "30d": ("Last 30 days", 30 * 24 * HOUR_MS),
}
#: Parameters that say where in a list one is.
_PLACES = ("before", "after", "page")


def position(page: Page, name: str) -> Position | None:
    """Return a place in a list; None where there is none, or nothing that is one."""
    first, _, second = page.query(name).partition(".")
    numbers = [int(text) for text in (first, second) if text.isascii() and text.isdigit() and len(text) < 19]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def moment(text: str) -> int | None:
    """Return milliseconds since the epoch of what a time field sends (UTC where it says nothing else); None for anything else."""
    try:
        found = datetime.fromisoformat(text)
        stamp = found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None
    return round(stamp * 1000) if 0 <= stamp < 1e11 else None


def time_range(page: Page) -> tuple[int | None, int | None]:
    """Return begin and end, by `time` (a word of RANGES) or by `from` and `to`; None: open."""
    begin, end = moment(page.query("from")), moment(page.query("to"))
    span = RANGES.get(page.query("time"))
    if span is not None and begin is None:
        begin = page.console.now_ms - span[1]
    return begin, end


def address(page: Page, **changed: str | None) -> str:
    """Return the query of the page's address with some values changed (None: left out), from the beginning of the list."""
    kept = {name: value for name, value in page.request.query_params.items() if value and name not in _PLACES}
    return "?" + urlencode({name: value for name, value in {**kept, **changed}.items() if value is not None})


def place(page: Page, name: str, at: Position | None) -> str | None:
    """Return the query that shows the list from a place on; None where there is no place."""
    return None if at is None else address(page, **{name: f"{at[0]}.{at[1]}"})
