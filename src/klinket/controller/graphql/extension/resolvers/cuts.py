"""Cut: the end of access, with the receipts of the connectors."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import cut_views, cuts
from klinket.controller.app.rows import CutReceiptRow, CutRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.extension.resolvers.service_keys import maker
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import query

TYPE = "Cut"
#: Cuts a list goes back.
MAX_LISTED = 10_000


@query
def _one(context: RequestContext, id: str) -> CutRow | None:
    number = number_of(id, TYPE)
    return context.tx.cuts.get(number) if number is not None else None


@query
def _many(context: RequestContext, **page: Any) -> dict[str, Any]:
    return context.connection(context.tx.cuts.newest(MAX_LISTED), page)


def _receipts(row: CutRow, info: Any) -> list[CutReceiptRow]:
    found: list[CutReceiptRow] = info.context.siblings.children(row, info.context.tx.cut_receipts, "cut_id")
    return found


def _shown(receipt: CutReceiptRow) -> dict[str, Any]:
    pending = receipt.state == cuts.PENDING
    return {
        "connector": receipt.connector_name,
        "state": receipt.state.upper(),
        "tookMs": receipt.took_ms,
        "stoppedAt": receipt.stopped_at_ms,
        "grantsEndAt": receipt.grants_end_at_ms if pending else None,
        "token": receipt.token,
        "flows": [
            {
                "flow": flow["flow"],
                "session": flow["session"],
                "resourceId": to_global_id("Resource", flow["resource"]),
                "host": flow["host"],
                "port": flow["port"],
                "protocol": flow["protocol"],
                "stoppedAfterMs": flow["stopped_after_ms"],
            }
            for flow in receipt.flows
        ],
    }


FIELDS = {
    "Query.cut": _one,
    "Query.cuts": _many,
    "Cut.id": lambda row, _: to_global_id(TYPE, row.id),
    "Cut.createdAt": lambda row, _: row.created_at_ms,
    "Cut.kind": lambda row, _: row.scope.split(" ")[0].upper(),
    "Cut.scope": lambda row, info: cut_views.scope_in_words(info.context.tx, row.scope),
    "Cut.reason": lambda row, _: row.reason,
    "Cut.revision": lambda row, _: row.revision,
    "Cut.actor": lambda row, _: maker(row.actor),
    "Cut.receipts": lambda row, info: [_shown(receipt) for receipt in _receipts(row, info)],
    "Cut.isComplete": lambda row, info: all(receipt.state != cuts.PENDING for receipt in _receipts(row, info)),
}
