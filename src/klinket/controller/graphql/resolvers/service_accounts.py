"""ServiceAccount: queries, fields, mutations."""

from __future__ import annotations

import uuid
from typing import Any

from klinket.controller.app import access, resources, service_accounts
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import ResourceRow, ServiceAccountRow
from klinket.controller.graphql.changes import given_rows, wanted_ids
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "ServiceAccount"


@query
def _one(context: RequestContext, id: str) -> ServiceAccountRow | None:
    number = number_of(id, TYPE)
    return context.tx.service_accounts.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    return context.connection(by_name(context.tx.service_accounts.all(), filter), page)


def _resources(context: RequestContext, ids: list[str | None] | None) -> list[ResourceRow]:
    return given_rows(ids, lambda id: resources.get(context.tx, number_of(id, "Resource"), id))


@mutation(WRITE)
def _create(context: RequestContext, name: str, resourceIds: list[str | None] | None = None) -> dict[str, Any]:
    account_uuid = str(uuid.UUID(bytes=context.services.entropy(16), version=4))
    row = service_accounts.create(context.tx, context.caller.actor, name=name, uuid=account_uuid)
    for resource in _resources(context, resourceIds):
        access.grant(context.tx, context.caller.actor, resource, row)
    return {"entity": row}


@mutation(WRITE)
def _update(
    context: RequestContext,
    id: str,
    name: str | None = None,
    resourceIds: list[str | None] | None = None,
    addedResourceIds: list[str | None] | None = None,
    removedResourceIds: list[str | None] | None = None,
) -> dict[str, Any]:
    tx, actor = context.tx, context.caller.actor
    row = service_accounts.get(tx, number_of(id, TYPE), id)
    if name is not None and name != row.name:
        row = service_accounts.rename(tx, actor, row, name)
    has = {one.resource_id for one in tx.access.find(service_account_id=row.id)}
    wanted = wanted_ids(
        has,
        lambda id: resources.get(tx, number_of(id, "Resource"), id),
        replace=resourceIds,
        added=addedResourceIds,
        removed=removedResourceIds,
    )
    for resource in tx.resources.find(id=has - wanted):
        access.revoke(tx, actor, resource, row)
    for resource in tx.resources.find(id=wanted - has):
        access.grant(tx, actor, resource, row)
    return {"entity": row}


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    row = service_accounts.get(context.tx, number_of(id, TYPE), id)
    service_accounts.delete(context.tx, context.caller.actor, row)
    return {}


def _account_resources(row: ServiceAccountRow, info: Any, **page: Any) -> dict[str, Any]:
    context: RequestContext = info.context
    links = context.siblings.children(row, context.tx.access, "service_account_id")
    return context.connection(context.siblings.across(links, "resource_id", context.tx.resources), page)


FIELDS = {
    "Query.serviceAccount": _one,
    "Query.serviceAccounts": _many,
    "Mutation.serviceAccountCreate": _create,
    "Mutation.serviceAccountUpdate": _update,
    "Mutation.serviceAccountDelete": _delete,
    "ServiceAccount.id": lambda row, _: to_global_id(TYPE, row.id),
    "ServiceAccount.createdAt": lambda row, _: row.created_at_ms,
    "ServiceAccount.updatedAt": lambda row, _: row.updated_at_ms,
    "ServiceAccount.name": lambda row, _: row.name,
    "ServiceAccount.resources": _account_resources,
    "ServiceAccount.keys": lambda row, info, **page: info.context.connection(
        info.context.siblings.children(row, info.context.tx.service_keys, "service_account_id"), page
    ),
}
