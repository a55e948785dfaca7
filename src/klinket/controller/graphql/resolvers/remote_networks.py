"""RemoteNetwork: queries, fields, mutations."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import remote_networks
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "RemoteNetwork"


@query
def _one(context: RequestContext, id: str | None = None, name: str | None = None) -> RemoteNetworkRow | None:
    if id:
        number = number_of(id, TYPE)
        return context.tx.remote_networks.get(number) if number is not None else None
    if name is None:
        return None
    return next(iter(context.tx.remote_networks.find(name=name)), None)


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    return context.connection(by_name(context.tx.remote_networks.all(), filter), page)


@mutation(WRITE)
def _create(
    context: RequestContext,
    name: str,
    isActive: bool | None = None,
    location: str | None = None,
    networkType: str | None = None,
) -> dict[str, Any]:
    row = remote_networks.create(
        context.tx,
        context.caller.actor,
        name=name,
        location=location or "OTHER",
        network_type=networkType or "REGULAR",
        is_active=True if isActive is None else isActive,
    )
    return {"entity": row}


@mutation(WRITE)
def _update(
    context: RequestContext, id: str, name: str | None = None, isActive: bool | None = None, location: str | None = None
) -> dict[str, Any]:
    row = remote_networks.get(context.tx, number_of(id, TYPE), id)
    changed = remote_networks.update(context.tx, context.caller.actor, row, name=name, location=location, is_active=isActive)
    return {"entity": changed}


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    remote_networks.delete(context.tx, context.caller.actor, remote_networks.get(context.tx, number_of(id, TYPE), id))
    return {}


FIELDS = {
    "Query.remoteNetwork": _one,
    "Query.remoteNetworks": _many,
    "Mutation.remoteNetworkCreate": _create,
    "Mutation.remoteNetworkUpdate": _update,
    "Mutation.remoteNetworkDelete": _delete,
    "RemoteNetwork.id": lambda row, _: to_global_id(TYPE, row.id),
    "RemoteNetwork.createdAt": lambda row, _: row.created_at_ms,
    "RemoteNetwork.updatedAt": lambda row, _: row.updated_at_ms,
    "RemoteNetwork.name": lambda row, _: row.name,
    "RemoteNetwork.location": lambda row, _: row.location,
    "RemoteNetwork.networkType": lambda row, _: row.network_type,
    "RemoteNetwork.isActive": lambda row, _: row.is_active,
    "RemoteNetwork.resources": lambda row, info, **page: info.context.connection(
        info.context.siblings.children(row, info.context.tx.resources, "remote_network_id"), page
    ),
    "RemoteNetwork.connectors": lambda row, info, **page: info.context.connection(
        info.context.siblings.children(row, info.context.tx.connectors, "remote_network_id"), page
    ),
}
