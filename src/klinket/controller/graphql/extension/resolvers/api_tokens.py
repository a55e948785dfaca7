"""ApiToken: the token text leaves here once, in the answer to its creation."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import api_tokens
from klinket.controller.app.api_tokens import PROVISION
from klinket.controller.app.rows import ApiTokenRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "ApiToken"


@query
def _one(context: RequestContext, id: str) -> ApiTokenRow | None:
    number = number_of(id, TYPE)
    return context.tx.api_tokens.get(number) if number is not None else None


@query
def _many(context: RequestContext, **page: Any) -> dict[str, Any]:
    return context.connection(context.tx.api_tokens.all(), page)


@mutation(PROVISION)
def _create(
    context: RequestContext, name: str, scopes: list[str], expirationTime: int, allowedRanges: list[str] | None = None
) -> dict[str, Any]:
    row, text = api_tokens.create(
        context.tx,
        context.caller.actor,
        name=name,
        scopes=_words(scopes),
        entropy=context.services.entropy,
        days=expirationTime,
        allowed_ranges=allowedRanges or (),
    )
    return {"entity": row, "token": text}


@mutation(PROVISION)
def _update(
    context: RequestContext,
    id: str,
    name: str | None = None,
    scopes: list[str] | None = None,
    isEnabled: bool | None = None,
    allowedRanges: list[str] | None = None,
) -> dict[str, Any]:
    row = api_tokens.get(context.tx, number_of(id, TYPE), id)
    changed = api_tokens.update(
        context.tx,
        context.caller.actor,
        row,
        name=name,
        scopes=None if scopes is None else _words(scopes),
        is_enabled=isEnabled,
        allowed_ranges=allowedRanges,
    )
    return {"entity": changed}


@mutation(PROVISION)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    api_tokens.delete(context.tx, context.caller.actor, api_tokens.get(context.tx, number_of(id, TYPE), id))
    return {}


def _words(scopes: list[str]) -> list[str]:
    """Return the scopes as they are stored: the enum's names in lower case."""
    return [scope.lower() for scope in scopes]


FIELDS = {
    "Query.apiToken": _one,
    "Query.apiTokens": _many,
    "Mutation.apiTokenCreate": _create,
    "Mutation.apiTokenUpdate": _update,
    "Mutation.apiTokenDelete": _delete,
    "ApiToken.id": lambda row, _: to_global_id(TYPE, row.id),
    "ApiToken.createdAt": lambda row, _: row.created_at_ms,
    "ApiToken.updatedAt": lambda row, _: row.updated_at_ms,
    "ApiToken.name": lambda row, _: row.name,
    "ApiToken.scopes": lambda row, _: [scope.upper() for scope in api_tokens.ALL_SCOPES if scope in row.scopes],
    "ApiToken.isEnabled": lambda row, _: row.is_enabled,
    "ApiToken.expiresAt": lambda row, _: row.expires_at_ms,
    "ApiToken.isExpired": lambda row, info: row.expires_at_ms is not None and row.expires_at_ms <= info.context.tx.now_ms,
    "ApiToken.allowedRanges": lambda row, _: row.allowed_ranges,
    "ApiToken.lastUsedAt": lambda row, _: row.last_used_ms,
    "ApiToken.createdBy": lambda row, _: (row.created_by.get("info") or {}).get("name"),
}
