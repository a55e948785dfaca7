"""The one-time link with which somebody signs in for the first time, or again after losing everything."""

from __future__ import annotations

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.controller.console.page import Page

#: Whether this controller makes links.
AVAILABLE = False


def make(page: Page, tx: Transaction, user: UserRow) -> str | None:
    """Return the address of a new link for a user, to be shown once; None where there are none."""
    del page, tx, user
    return None
