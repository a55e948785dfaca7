"""Pages of what only grows: a cursor names the event before which the next page begins, and no table is read as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES, Cursors

#: Rows one question looks at; a filter that few events meet gives a short page and a cursor to go on from.
MAX_SCANNED = 10_000
#: Rows read at a time.
SCAN_STEP = 500
#: Numbers of events. A cursor without meaning counts as "from the start", as those of the contract do.
_POSITIONS = Cursors("before", 18)
T = TypeVar("T")


def events_page(
    read: Callable[[int | None, int], list[T]],
    number: Callable[[T], int],
    matches: Callable[[T], bool],
    first: int | None,
    after: str | None,
) -> dict[str, Any]:
    """Return a connection of the newest events that match. `read(before, limit)` gives rows below a number, the highest first."""
    size = max(0, min(DEFAULT_PAGE_NODES if first is None else first, MAX_PAGE_NODES))
    start = position = _POSITIONS.number(after)
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
    edges = [{"node": row, "cursor": _POSITIONS.of(number(row))} for row in found]
    return {
        "edges": edges,
        "pageInfo": {
            "hasNextPage": more and size > 0,
            "hasPreviousPage": start is not None,
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": None if position is None else _POSITIONS.of(position),
        },
    }
