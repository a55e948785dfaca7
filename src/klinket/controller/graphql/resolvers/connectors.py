"""Connector: queries, fields, mutations."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import connectors, remote_networks
from klinket.controller.app.api_tokens import PROVISION, WRITE
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "Connector"


@query
def _one(context: RequestContext, id: str) -> ConnectorRow | None:
    number = number_of(id, TYPE)
    return context.tx.connectors.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    return context.connection(by_name(context.tx.connectors.all(), filter), page)


@mutation(WRITE)
def _create(
    context: RequestContext,
    remoteNetworkId: str,
    name: str | None = None,
    hasStatusNotificationsEnabled: bool | None = None,
) -> dict[str, Any]:
    network = remote_networks.get(context.tx, number_of(remoteNetworkId, "RemoteNetwork"), remoteNetworkId)
    row = connectors.create(
        context.tx,
        context.caller.actor,
        network,
        name=connectors.made_up_name(context.tx, context.services.entropy) if name is None else name,
        has_status_notifications=True if hasStatusNotificationsEnabled is None else hasStatusNotificationsEnabled,
    )
    return {"entity": row}


@mutation(WRITE)
def _update(
    context: RequestContext, id: str, name: str | None = None, hasStatusNotificationsEnabled: bool | None = None
) -> dict[str, Any]:
    row = connectors.get(context.tx, number_of(id, TYPE), id)
    changed = connectors.update(
        context.tx,
        context.caller.actor,
        row,
        name=name,
        has_status_notifications=hasStatusNotificationsEnabled,
    )
    return {"entity": changed}


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    connectors.delete(context.tx, context.caller.actor, connectors.get(context.tx, number_of(id, TYPE), id))
    return {}


@mutation(PROVISION)
def _generate_tokens(context: RequestContext, connectorId: str) -> dict[str, Any]:
    row = connectors.get(context.tx, number_of(connectorId, TYPE), connectorId)
    access, refresh = connectors.issue_tokens(context.tx, context.caller.actor, row, context.services.entropy)
    return {"connectorTokens": {"accessToken": access, "refreshToken": refresh}}


FIELDS = {
    "Query.connector": _one,
    "Query.connectors": _many,
    "Mutation.connectorCreate": _create,
    "Mutation.connectorUpdate": _update,
    "Mutation.connectorDelete": _delete,
    "Mutation.connectorGenerateTokens": _generate_tokens,
    "Connector.id": lambda row, _: to_global_id(TYPE, row.id),
    "Connector.createdAt": lambda row, _: row.created_at_ms,
    "Connector.updatedAt": lambda row, _: row.updated_at_ms,
    "Connector.name": lambda row, _: row.name,
    "Connector.remoteNetwork": lambda row, info: info.context.siblings.parent(
        row, "remote_network_id", info.context.tx.remote_networks
    ),
    "Connector.state": lambda row, info: connectors.state(row, info.context.tx.now_ms),
    "Connector.lastHeartbeatAt": lambda row, _: row.last_heartbeat_ms,
    "Connector.hasStatusNotificationsEnabled": lambda row, _: row.has_status_notifications,
    "Connector.hostname": lambda row, _: row.hostname,
    "Connector.version": lambda row, _: row.version,
    "Connector.publicIP": lambda row, _: row.public_ip,
    "Connector.privateIPs": lambda row, _: row.private_ips,
}
