"""Sink: where events are delivered. Secrets go in sealed and never come out."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import sinks
from klinket.controller.app.api_tokens import PROVISION
from klinket.controller.app.rows import SinkRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query
from klinket.domain.sink import SinkKind

TYPE = "Sink"
_SETTINGS = ("url", "address", "authority", "sender", "recipients", "user")


@query
def _one(context: RequestContext, id: str) -> SinkRow | None:
    number = number_of(id, TYPE)
    return context.tx.sinks.get(number) if number is not None else None


@query
def _many(context: RequestContext, **page: Any) -> dict[str, Any]:
    return context.connection(context.tx.sinks.all(), page)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in _SETTINGS if given.get(name) is not None}


def _sealed(context: RequestContext, kind: SinkKind, secret: str) -> bytes:
    return sinks.sealed(kind, secret, context.services.seal)


@mutation(PROVISION)
def _create(
    context: RequestContext, name: str, kind: str, streams: list[str], secret: str | None = None, **given: Any
) -> dict[str, Any]:
    parsed = SinkKind(kind.lower())
    made_up = sinks.made_up(parsed, context.services.entropy) if secret is None else None
    whole = made_up or secret
    row = sinks.create(
        context.tx,
        context.caller.actor,
        name=name,
        kind=parsed,
        settings=_settings(given),
        streams=[stream.lower() for stream in streams],
        sealed_secret=None if whole is None else _sealed(context, parsed, whole),
    )
    return {"entity": row, "secret": made_up}


@mutation(PROVISION)
def _update(context: RequestContext, id: str, secret: str | None = None, **given: Any) -> dict[str, Any]:
    row = sinks.get(context.tx, number_of(id, TYPE), id)
    changes: dict[str, Any] = {}
    if given.get("name") is not None:
        changes["name"] = given["name"]
    if given.get("isEnabled") is not None:
        changes["is_enabled"] = given["isEnabled"]
    if given.get("streams") is not None:
        changes["streams"] = [stream.lower() for stream in given["streams"]]
    if settings := _settings(given):
        changes["settings"] = settings
    if secret is not None:
        changes["sealed_secret"] = _sealed(context, SinkKind(row.kind), secret)
    return {"entity": sinks.update(context.tx, context.caller.actor, row, changes)}


@mutation(PROVISION)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    sinks.delete(context.tx, context.caller.actor, sinks.get(context.tx, number_of(id, TYPE), id))
    return {}


@mutation(PROVISION)
def _test(context: RequestContext, id: str) -> dict[str, Any]:
    row = sinks.get(context.tx, number_of(id, TYPE), id)
    return {"entity": sinks.test(context.tx, context.caller.actor, row)}


FIELDS = {
    "Query.sink": _one,
    "Query.sinks": _many,
    "Mutation.sinkCreate": _create,
    "Mutation.sinkUpdate": _update,
    "Mutation.sinkDelete": _delete,
    "Mutation.sinkTest": _test,
    "Sink.id": lambda row, _: to_global_id(TYPE, row.id),
    "Sink.name": lambda row, _: row.name,
    "Sink.kind": lambda row, _: row.kind.upper(),
    "Sink.streams": lambda row, _: [stream.upper() for stream in row.streams],
    "Sink.isEnabled": lambda row, _: row.is_enabled,
    "Sink.where": lambda row, _: sinks.where(row),
    "Sink.recipients": lambda row, _: row.settings.get("recipients") or [],
    "Sink.createdAt": lambda row, _: row.created_at_ms,
    "Sink.lastDeliveredAt": lambda row, _: row.last_delivered_ms,
    "Sink.waiting": lambda row, info: sinks.waiting(info.context.tx, row),
    "Sink.attempts": lambda row, _: row.attempts,
    "Sink.lastError": lambda row, _: row.last_error,
    "Sink.nextTryAt": lambda row, _: row.next_try_ms,
}
