"""Cursor connections: pages of edges as the contract wants them (facts §7: cursors, default and maximal pages)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

#: Nodes on a page when the client names no size. Clients without paging rely on 100 or more.
DEFAULT_PAGE_NODES = 100
#: The largest page served, whatever `first` says.
MAX_PAGE_NODES = 100

_MAX_CURSOR_CHARS = 100
_T = TypeVar("_T")


class Cursors:
    """Opaque names of places in one kind of list: a prefix and a whole number, in base64."""

    def __init__(self, prefix: str, digits: int) -> None:
        """`digits`: of the largest number that is understood."""
        self._prefix = prefix
        self._form = re.compile(rf"{re.escape(prefix)}:([0-9]{{1,{digits}}})", re.ASCII)

    def of(self, number: int) -> str:
        """Return the cursor of a number."""
        return base64.b64encode(f"{self._prefix}:{number}".encode()).decode()

    def number(self, text: str | None) -> int | None:
        """Return the number a cursor names; None for null, absent or not a cursor of these (clients send "0")."""
        if not text or len(text) > _MAX_CURSOR_CHARS:
            return None
        try:
            match = self._form.fullmatch(base64.b64decode(text, validate=True).decode("ascii"))
        except (binascii.Error, ValueError):
            return None
        return int(match[1]) if match else None


#: Offsets of nodes in their list, counted from 0.
OFFSETS = Cursors("arrayconnection", 12)


def connection(
    nodes: Sequence[_T],
    arguments: dict[str, Any],
    edge: Callable[[_T], dict[str, Any]] = lambda node: {"node": node},
    page: Callable[[Sequence[_T]], None] = lambda _: None,
) -> dict[str, Any]:
    """Return a connection over the whole list: `arguments` may hold before, after, first, last.

    `nodes` may read its slices when they are asked for; `page` is told which one it was.

    Negative sizes count as 0; sizes above MAX_PAGE_NODES as MAX_PAGE_NODES.
    """
    total = len(nodes)
    after, before = OFFSETS.number(arguments.get("after")), OFFSETS.number(arguments.get("before"))
    start = 0 if after is None else after + 1
    end = total if before is None else min(before, total)
    first, last = arguments.get("first"), arguments.get("last")
    if first is None and last is None:
        first = DEFAULT_PAGE_NODES
    if first is not None:
        end = min(end, start + _bounded(first))
    if last is not None:
        start = max(start, end - _bounded(last))
    end = max(start, end)
    shown = nodes[start:end]
    page(shown)
    edges = [{**edge(node), "cursor": OFFSETS.of(start + index)} for index, node in enumerate(shown)]
    return {
        "edges": edges,
        "totalCount": total,
        "pageInfo": {
            "hasNextPage": end < total,
            "hasPreviousPage": start > 0 and total > 0,
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": edges[-1]["cursor"] if edges else None,
        },
    }


def _bounded(size: int) -> int:
    return max(0, min(size, MAX_PAGE_NODES))
