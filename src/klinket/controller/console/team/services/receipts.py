"""Which cut an action has ordered, and its receipt as connectors answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from klinket.controller.app import cuts
from klinket.controller.app.ports import Transaction
from klinket.controller.console.page import Page
from klinket.domain.errors import NotFound

T = TypeVar("T")


async def with_cut(page: Page, change: Callable[[Transaction], T]) -> tuple[T, int | None]:
    """Run a change; returns what it returns, and the id of the last cut it has ordered (None: of none)."""

    def run(tx: Transaction) -> tuple[T, int | None]:
        before = _last(tx)
        made = change(tx)
        after = _last(tx)
        return made, after if after != before else None

    return await page.write(run)


def _last(tx: Transaction) -> int | None:
    newest = tx.cuts.newest(1)
    return newest[0].id if newest else None


def shown_receipt(page: Page, tx: Transaction) -> dict[str, Any] | None:
    """Return the receipt of the cut that the query's `cut` names; None for none."""
    text = page.query("cut")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    try:
        return cuts.receipt(tx, int(text))
    except NotFound:
        return None


def with_receipt(path: str, cut: int | None) -> str:
    """Return the address of a page that shows the receipt of a cut."""
    return path if cut is None else f"{path}?cut={cut}"
