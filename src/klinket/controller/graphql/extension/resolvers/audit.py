"""AuditEvent: who did what, when, and from where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLError

from klinket.controller.app import audit_log, retention
from klinket.controller.app.rows import AuditRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.extension.events_page import events_page
from klinket.controller.graphql.global_id import from_global_id, number_of, to_global_id
from klinket.controller.graphql.mutation import query
from klinket.domain.audit import ActorType
from klinket.domain.audit_chain import BEGINNING

TYPE = "AuditEvent"
#: Characters of the text a filter looks for.
MAX_TEXT_CHARS = 200


@dataclass(frozen=True, slots=True)
class Shown:
    """An event, and the digest of the one before it."""

    row: AuditRow
    previous: str


@query
def _one(context: RequestContext, id: str) -> Shown | None:
    number = number_of(id, TYPE)
    found = context.tx.audit.find(number=number) if number is not None else []
    return Shown(found[0], audit_log.digest_at(context.tx, found[0].number - 1)) if found else None


@query
def _many(
    context: RequestContext, filter: dict[str, Any] | None = None, first: int | None = None, after: str | None = None
) -> dict[str, Any]:
    given = {name: value for name, value in (filter or {}).items() if value is not None}
    if len(given.get("text", "")) > MAX_TEXT_CHARS:
        raise GraphQLError(f"filter text: at most {MAX_TEXT_CHARS} characters are allowed")
    equal = {"action": given["actions"]} if "actions" in given else {}
    least = {"time_ms": given["from"]} if "from" in given else {}
    below = {"time_ms": given["to"]} if "to" in given else {}

    def read(before: int | None, limit: int) -> list[AuditRow]:
        bounds = below if before is None else {**below, "number": before}
        return context.tx.audit.select("number", limit, least=least, below=bounds, descending=True, **equal)

    page = events_page(read, lambda row: row.number, lambda row: _matches(row, given), first, after)
    before = {edge["node"].number - 1 for edge in page["edges"]}
    digests = {row.number: row.digest for row in context.tx.audit.find(number=before)} if before else {}
    for edge in page["edges"]:
        edge["node"] = Shown(edge["node"], digests.get(edge["node"].number - 1, BEGINNING))
    return page


def _matches(row: AuditRow, given: Mapping[str, Any]) -> bool:
    if "actorType" in given and row.actor.get("type") != ActorType[given["actorType"]].value:
        return False
    if ("targetType" in given or "targetId" in given) and not any(_is_target(target, given) for target in row.targets):
        return False
    return "text" not in given or given["text"].casefold() in _whole(row).casefold()


def _is_target(target: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    type, id = target.get("type"), target.get("id")
    if given.get("targetType", type) != type:
        return False
    if "targetId" not in given or given["targetId"] == id:
        return True
    shown = from_global_id(given["targetId"])
    return shown is not None and (shown[0][:1].lower() + shown[0][1:], str(shown[1])) == (type, id)


def _whole(row: AuditRow) -> str:
    return json.dumps([row.action, row.actor, row.targets, row.detail, row.request], ensure_ascii=False)


@query
def _retention(context: RequestContext) -> dict[str, Any]:
    found = retention.state(context.tx, context.services.audit_days)
    renamed = {"until": found["until_ms"], "prunedAt": found["pruned_at_ms"], "heldBy": found["held_by"]}
    return {name: found[name] for name in ("days", "events", "pruned", "digest")} | renamed


FIELDS = {
    "Query.auditRetention": _retention,
    "Query.auditEvent": _one,
    "Query.auditEvents": _many,
    "AuditEvent.id": lambda shown, _: to_global_id(TYPE, shown.row.number),
    "AuditEvent.number": lambda shown, _: shown.row.number,
    "AuditEvent.time": lambda shown, _: shown.row.time_ms,
    "AuditEvent.action": lambda shown, _: shown.row.action,
    "AuditEvent.actor": lambda shown, _: {**shown.row.actor, "name": (shown.row.actor.get("info") or {}).get("name")},
    "AuditEvent.targets": lambda shown, _: shown.row.targets,
    "AuditEvent.source": lambda shown, _: shown.row.actor.get("source"),
    "AuditEvent.request": lambda shown, _: shown.row.request,
    "AuditEvent.digest": lambda shown, _: shown.row.digest,
    "AuditEvent.event": lambda shown, _: audit_log.exported_event(shown.row, shown.previous),
}
