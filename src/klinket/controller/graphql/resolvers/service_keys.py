"""ServiceAccountKey: the key text leaves here once, in the answer to its creation."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import service_keys
from klinket.controller.app.api_tokens import PROVISION, WRITE
from klinket.controller.app.rows import ServiceKeyRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.key_text import create_key
from klinket.controller.graphql.mutation import mutation, query

TYPE = "ServiceAccountKey"


@query
def _one(context: RequestContext, id: str) -> ServiceKeyRow | None:
    number = number_of(id, TYPE)
    return context.tx.service_keys.get(number) if number is not None else None


@mutation(PROVISION)
def _create(context: RequestContext, serviceAccountId: str, expirationTime: int, name: str | None = None) -> dict[str, Any]:
    row, token = create_key(context, serviceAccountId, expirationTime, name)
    return {"entity": row, "token": token}


@mutation(WRITE)
def _update(context: RequestContext, id: str, name: str) -> dict[str, Any]:
    row = service_keys.get(context.tx, number_of(id, TYPE), id)
    return {"entity": service_keys.rename(context.tx, context.caller.actor, row, name)}


@mutation(PROVISION)
def _revoke(context: RequestContext, id: str) -> dict[str, Any]:
    row = service_keys.get(context.tx, number_of(id, TYPE), id)
    return {"entity": service_keys.revoke(context.tx, context.caller.actor, row)}


@mutation(PROVISION)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    service_keys.delete(context.tx, context.caller.actor, service_keys.get(context.tx, number_of(id, TYPE), id))
    return {}


FIELDS = {
    "Query.serviceAccountKey": _one,
    "Mutation.serviceAccountKeyCreate": _create,
    "Mutation.serviceAccountKeyUpdate": _update,
    "Mutation.serviceAccountKeyRevoke": _revoke,
    "Mutation.serviceAccountKeyDelete": _delete,
    "ServiceAccountKey.id": lambda row, _: to_global_id(TYPE, row.id),
    "ServiceAccountKey.createdAt": lambda row, _: row.created_at_ms,
    "ServiceAccountKey.updatedAt": lambda row, _: row.updated_at_ms,
    "ServiceAccountKey.name": lambda row, _: row.name,
    "ServiceAccountKey.expiresAt": lambda row, _: row.expires_at_ms,
    "ServiceAccountKey.revokedAt": lambda row, _: row.revoked_at_ms,
    "ServiceAccountKey.status": lambda row, info: row.state(info.context.tx.now_ms).value,
    "ServiceAccountKey.serviceAccount": lambda row, info: info.context.siblings.parent(
        row, "service_account_id", info.context.tx.service_accounts
    ),
}
