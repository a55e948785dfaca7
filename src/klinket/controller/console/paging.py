"""Lists in pages: a part of the rows, and the addresses of the parts before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlencode

from klinket.controller.console.page import Page

R = TypeVar("R")

#: Rows of one page of a list.
PAGE_ROWS = 50


@dataclass(frozen=True, slots=True)
class Part(Generic[R]):
    """Rows `first` to `last` (counted from 1) of `total`; addresses are relative to the page, None: there is none."""

    rows: Sequence[R]
    first: int
    last: int
    total: int
    earlier: str | None
    later: str | None


def part_of(page: Page, rows: Sequence[R], size: int = PAGE_ROWS) -> Part[R]:
    """Return the part of `rows` that the query's `page` (from 1) asks for; only that part is read."""
    total = len(rows)
    wanted = page.query("page", "1")
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 9 else 1
    number = max(1, min(number, max(1, -(-total // size))))
    begin = (number - 1) * size
    shown = rows[begin : begin + size]

    def address(other: int) -> str:
        return "?" + urlencode({**page.request.query_params, "page": other})

    return Part(
        shown,
        begin + 1 if shown else 0,
        begin + len(shown),
        total,
        address(number - 1) if number > 1 else None,
        address(number + 1) if begin + size < total else None,
    )
