"""Pages of what only grows: a cursor names the event before which the next page begins, and no table is read as a whole."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, TypeVar

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES

#: Rows one question looks at; a filter that few events meet gives a short page and a cursor to go on from.
MAX_SCANNED = 10_000
#: Rows read at a time.
SCAN_STEP = 500
#: A cursor without meaning counts as "from the start", as those of the contract do.
_CURSOR = re.compile(r"before:([0-9]{1,18})", re.ASCII)
T = TypeVar("T")


def cursor(position: int) -> str:
    """Return the cursor of the event with this number."""
    return base64.b64encode(f"before:{position}".encode()).decode()


def position_of(text: str | None) -> int | None:
    """Return the number a cursor names; None for null, absent or not a cursor of ours."""
    if not text or len(text) > 100:
        return None
    try:
        match = _CURSOR.fullmatch(base64.b64decode(text, validate=True).decode("ascii"))
    except (binascii.Error, ValueError):
        return None
    return int(match[1]) if match else None


def events_page(
    read: Callable[[int | None, int], list[T]],
    number: Callable[[T], int],
    matches: Callable[[T], bool],
    first: int | None,
    after: str | None,
) -> dict[str, Any]:
    """Return a connection of the newest events that match. `read(before, limit)` gives rows below a number, the highest first."""
    size = max(0, min(DEFAULT_PAGE_NODES if first is None else first, MAX_PAGE_NODES))
    start = position = position_of(after)
    found: list[T] = []
    scanned, more = 0, True
    while more and len(found) < size and scanned < MAX_SCANNED:
        limit = SCAN_STEP if scanned else size + 1
        rows = read(position, limit)
        more = len(rows) == limit
        for place, row in enumerate(rows, 1):
            scanned += 1
            position = number(row)
            if matches(row):
                found.append(row)
                if len(found) == size:
                    more = more or place < len(rows)
                    break
    edges = [{"node": row, "cursor": cursor(number(row))} for row in found]
    return {
        "edges": edges,
        "pageInfo": {
            "hasNextPage": more and size > 0,
            "hasPreviousPage": start is not None,
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": None if position is None else cursor(position),
        },
    }
