"""Relay: which there are, whether they are there, and their end. Tokens are made on the controller's machine only."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import relays
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import RelayRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "Relay"


@query
def _one(context: RequestContext, id: str) -> RelayRow | None:
    number = number_of(id, TYPE)
    return context.tx.relays.get(number) if number is not None else None


@query
def _many(context: RequestContext, **page: Any) -> dict[str, Any]:
    return context.connection(context.tx.relays.all(), page)


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    row = relays.get(context.tx, number_of(id, TYPE), id)
    relays.delete(context.tx, context.caller.actor, row, kept=context.services.own_relays)
    return {}


def _connectors(row: RelayRow, info: Any) -> int:
    return sum(row.id in at for at in info.context.services.attached_connectors().values())


FIELDS = {
    "Query.relay": _one,
    "Query.relays": _many,
    "Mutation.relayDelete": _delete,
    "Relay.id": lambda row, _: to_global_id(TYPE, row.id),
    "Relay.name": lambda row, _: row.name,
    "Relay.address": lambda row, _: row.address,
    "Relay.certificateSha256": lambda row, _: row.certificate_sha256,
    "Relay.isOnline": lambda row, info: row.id in info.context.services.attached_relays(),
    "Relay.connectorCount": _connectors,
    "Relay.createdAt": lambda row, _: row.created_at_ms,
}
