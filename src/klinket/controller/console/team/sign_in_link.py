"""The one-time link with which somebody signs in for the first time, or again after losing everything."""

from __future__ import annotations

from klinket.controller.app import sign_in_links
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.controller.app.users import DISABLED
from klinket.controller.console.page import Page
from klinket.domain.role import permissions_of


def may_have(user: UserRow) -> bool:
    """Return whether a link would lead the user anywhere: not without a console."""
    return user.state != DISABLED and bool(permissions_of(user.role))


def make(page: Page, tx: Transaction, user: UserRow) -> str | None:
    """Return the address of a new link for a user, to be shown once; None for one who has no console."""
    if not may_have(user):
        return None
    text = sign_in_links.create(tx, page.actor, user, page.console.services.entropy)
    return sign_in_links.address_of(page.console.config.public_url, text)
