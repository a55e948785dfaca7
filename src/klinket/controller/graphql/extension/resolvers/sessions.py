"""Session: who is logged in with which key, and ending it."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import sessions
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import SessionRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

#: Sessions one question looks at, the newest.
MAX_LISTED = 10_000


@query
def _many(
    context: RequestContext,
    serviceAccountId: str | None = None,
    serviceKeyId: str | None = None,
    live: bool | None = None,
    **page: Any,
) -> dict[str, Any]:
    equal: dict[str, Any] = {}
    if serviceAccountId is not None:
        equal["service_account_id"] = number_of(serviceAccountId, "ServiceAccount") or 0
    if serviceKeyId is not None:
        equal["service_key_id"] = number_of(serviceKeyId, "ServiceAccountKey") or 0
    if live:
        equal["ended_at_ms"] = None
    rows = context.tx.sessions.newest(MAX_LISTED, order="created_at_ms", **equal)
    return context.connection(rows, page)


@mutation(WRITE)
def _end(context: RequestContext, id: str) -> dict[str, Any]:
    return {"entity": sessions.end_by_admin(context.tx, context.caller.actor, id)}


def _is_attached(row: SessionRow, info: Any) -> bool:
    context: RequestContext = info.context
    return row.ended_at_ms is None and row.id in context.services.attached_sessions()


FIELDS = {
    "Query.sessions": _many,
    "Mutation.sessionEnd": _end,
    "Session.id": lambda row, _: row.id,
    "Session.createdAt": lambda row, _: row.created_at_ms,
    "Session.serviceAccountId": lambda row, _: to_global_id("ServiceAccount", row.service_account_id),
    "Session.serviceKeyId": lambda row, _: to_global_id("ServiceAccountKey", row.service_key_id),
    "Session.hostname": lambda row, _: row.hostname,
    "Session.address": lambda row, _: row.address,
    "Session.clientVersion": lambda row, _: row.client_version,
    "Session.isAttached": _is_attached,
    "Session.endedAt": lambda row, _: row.ended_at_ms,
    "Session.endReason": lambda row, _: row.end_reason,
}
