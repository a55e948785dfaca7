"""All keys over all services: which expire soon, which never do, which are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from klinket.controller.app import key_hygiene, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.controller.console.team.services.listing import SOON_MS, ListedKey, listed_keys
from klinket.domain.service_key import WARN_DAYS

LIST = "/team/services/keys"
#: What the list can show: the word of its address, and what people read.
SHOWN = {
    "expiring": f"Expire within {max(WARN_DAYS)} days",
    "active": "Active",
    "unlimited": "Never expire",
    "revoked": "Revoked",
    "expired": "Expired",
    "all": "All",
}
MAX_SEARCH_CHARS = 100


def _rows(tx: Transaction, which: str, text: str, account: int | None) -> Sequence[ServiceKeyRow]:
    only: dict[str, Any] = {} if account is None else {"service_account_id": account}
    columns, now = ("name", "kid"), {"expires_at_ms": tx.now_ms + 1}
    find = tx.service_keys.matching
    match which:
        case "expiring":
            soon = {"expires_at_ms": tx.now_ms + SOON_MS}
            return find(text, columns, order="expires_at_ms", least=now, below=soon, revoked_at_ms=None, **only)
        case "active":
            beyond = {"expires_at_ms": tx.now_ms}
            return find(text, columns, order="expires_at_ms", beyond=beyond, revoked_at_ms=None, **only)
        case "unlimited":
            return find(text, columns, descending=True, expires_at_ms=None, revoked_at_ms=None, **only)
        case "revoked":
            return find(text, columns, order="revoked_at_ms", descending=True, least={"revoked_at_ms": 0}, **only)
        case "expired":
            return find(text, columns, order="expires_at_ms", descending=True, below=now, revoked_at_ms=None, **only)
    return find(text, columns, descending=True, **only)


async def _list(page: Page) -> Response:
    text, service = page.query("q")[:MAX_SEARCH_CHARS], page.query("service")
    account = int(service) if service.isascii() and service.isdigit() and len(service) < 10 else None
    which = page.query("show")
    if which not in SHOWN:
        which = "active" if account is None else "all"

    def read(tx: Transaction) -> tuple[Part[ServiceKeyRow], list[ListedKey], ServiceAccountRow | None, dict[int, int]]:
        owner = None if account is None else service_accounts.get(tx, account, account)
        part = part_of(page, _rows(tx, which, text, account))
        return part, listed_keys(tx, part.rows), owner, key_hygiene.expiring_counts(tx)

    part, keys, owner, expiring = await page.read(read)
    return page.render(
        "team/services/keys.html", part=part, keys=keys, owner=owner, expiring=expiring, which=which, words=SHOWN, text=text
    )


ROUTES: tuple[ConsoleRoute, ...] = (shown(LIST, _list),)
