"""Activity > Audit: who changed what, before and after, exports, and the proof that nobody changed the record of it."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from klinket.controller.app import audit_check, audit_log, audit_search, cut_views
from klinket.controller.app.audit_search import AuditFilter, AuditPage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AuditRow
from klinket.controller.console.activity import asked
from klinket.controller.console.activity.audit_words import OBJECTS, action_in_words, detail_of, did, object_link
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.controller.exports import Wanted
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import AuditAction
from klinket.domain.errors import InvalidInput, NotFound
from klinket.wire.audit_signature import verify_anchor, verify_block

LIST = "/activity/audit"
PAGE_EVENTS = 50
#: Characters of a text that is looked for.
MAX_TEXT = 100
ACTIONS = {action.value for action in AuditAction}


def _filter(page: Page) -> AuditFilter:
    begin, end = asked.time_range(page)
    action, kind = page.query("action"), page.query("type")
    return AuditFilter(
        actor=page.query("actor")[:MAX_TEXT],
        action=action if action in ACTIONS else None,
        object_type=kind if kind in OBJECTS else None,
        object=page.query("object")[:MAX_TEXT],
        begin_ms=begin,
        end_ms=end,
    )


def _cut_words(tx: Transaction, rows: list[AuditRow]) -> dict[str, str]:
    """Return the scopes of cuts among events, in words."""
    scopes = {str(target.get("name")) for row in rows if row.action == AuditAction.CUT.value for target in row.targets}
    return cut_views.in_words(tx, scopes) if scopes else {}


async def _list(page: Page) -> Response:
    wanted = _filter(page)
    before, after = asked.position(page, "before"), asked.position(page, "after")

    def read(tx: Transaction) -> tuple[AuditPage, int, dict[str, str]]:
        found = audit_search.events(tx, wanted, PAGE_EVENTS, before=before, after=after)
        if after is not None and found.newer is None:
            found = audit_search.events(tx, wanted, PAGE_EVENTS)
        head = tx.audit_head.get(1)
        return found, 0 if head is None else head.number - audit_log.pruned(tx), _cut_words(tx, found.rows)

    found, count, cut_words = await page.read(read)
    looked = found.rows[-1].time_ms if found.is_partial and found.rows else None
    return page.render(
        "activity/audit.html",
        wanted=wanted,
        rows=found.rows,
        older=asked.place(page, "before", found.older),
        newer=asked.place(page, "after", found.newer),
        is_partial=found.is_partial,
        looked_back_to_ms=looked,
        count=count,
        actions={"": "Any action", **{word: action_in_words(word) for word in sorted(ACTIONS)}},
        objects={"": "Anything", **OBJECTS},
        ranges={"": "Any time", **{word: label for word, (label, _) in asked.RANGES.items()}},
        address=lambda **changed: asked.address(page, **changed),
        did=did,
        cut_words=cut_words,
        object_link=object_link,
        first_page=not page.query("before") and not page.query("after"),
    )


async def _one(page: Page) -> Response:
    number = page.number()

    def read(tx: Transaction) -> dict[str, Any]:
        found: list[AuditRow] = tx.audit.find(number=number)
        if not found:
            raise NotFound("Audit event", number)
        row = found[0]
        signature = tx.audit_signatures.select("number", 1, least={"number": number})
        return {
            "row": row,
            "cut_words": _cut_words(tx, [row]),
            "previous": audit_log.digest_at(tx, number - 1),
            "signature": signature[0] if signature else None,
            "older": number - 1 if tx.audit.find(number=number - 1) else None,
            "newer": number + 1 if tx.audit.find(number=number + 1) else None,
        }

    values = await page.read(read)
    row = values["row"]
    return page.render(
        "activity/audit_event.html",
        differences=audit_search.differences(row),
        detail=detail_of(row),
        fields_of=audit_search.fields_of,
        did=did,
        object_link=object_link,
        objects=OBJECTS,
        **values,
    )


async def _verify(page: Page) -> Response:
    keys = page.console.trust.keys[KeyPurpose.AUDIT]
    text = page.query("after", "0")
    after = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
    checked = await page.read(
        lambda tx: audit_check.part(
            tx,
            page.console.trust.network,
            lambda token: verify_block(token, keys),
            after,
            lambda token: verify_anchor(token, keys),
        )
    )
    return page.render("activity/audit_verify.html", checked=checked, started="after" in page.request.query_params)


async def _export(page: Page) -> Response:
    format = page.query("format", "json")
    if format not in ("csv", "json"):
        raise InvalidInput("format", "format is csv or json")
    begin, end = asked.time_range(page)
    wanted = Wanted(format, begin, end, gzip=False)
    return page.console.exports.audit(page.request, wanted, f"console user {page.user.id}")


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/export", _export),
    shown(LIST + "/verify", _verify),
    shown(LIST + "/{id:int}", _one),
)
