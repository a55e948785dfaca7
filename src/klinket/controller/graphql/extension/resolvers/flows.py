"""FlowEvent: what connectors saw of connections."""

from __future__ import annotations

from typing import Any

from klinket.controller.app.rows import FlowEventRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.extension.events_page import events_page
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import query
from klinket.wire.traffic_log import status_of

TYPE = "FlowEvent"
#: Ids of a filter: argument, column, and the type whose ids count.
_IDS = (
    ("serviceAccountId", "service_account_id", "ServiceAccount"),
    ("serviceKeyId", "service_key_id", "ServiceAccountKey"),
    ("resourceId", "resource_id", "Resource"),
    ("connectorId", "connector_id", "Connector"),
    ("remoteNetworkId", "remote_network_id", "RemoteNetwork"),
)


@query
def _many(
    context: RequestContext, filter: dict[str, Any] | None = None, first: int | None = None, after: str | None = None
) -> dict[str, Any]:
    given = {name: value for name, value in (filter or {}).items() if value is not None}
    # An id of another type names no object: nothing has the number 0.
    equal: dict[str, Any] = {column: number_of(given[name], type) or 0 for name, column, type in _IDS if name in given}
    if "kinds" in given:
        equal["kind"] = [kind.lower() for kind in given["kinds"]]
    if "failure" in given:
        equal["failure"] = given["failure"]
    least = {"time_ms": given["from"]} if "from" in given else {}
    below = {"time_ms": given["to"]} if "to" in given else {}

    def read(before: int | None, limit: int) -> list[FlowEventRow]:
        bounds = below if before is None else {**below, "id": before}
        rows = context.tx.flow_events.select("id", limit, least=least, below=bounds, descending=True, **equal)
        context.siblings.saw(rows)
        return rows

    return events_page(read, lambda row: row.id, lambda _: True, first, after)


def _id(type: str, number: int | None) -> str | None:
    return None if number is None else to_global_id(type, number)


def _resource_name(row: FlowEventRow, info: Any) -> str | None:
    context: RequestContext = info.context
    resource = context.siblings.parent(row, "resource_id", context.tx.resources)
    return None if resource is None else resource.name


FIELDS = {
    "Query.flowEvents": _many,
    "FlowEvent.id": lambda row, _: to_global_id(TYPE, row.id),
    "FlowEvent.time": lambda row, _: row.time_ms,
    "FlowEvent.kind": lambda row, _: row.kind.upper(),
    "FlowEvent.connection": lambda row, _: row.flow,
    "FlowEvent.status": lambda row, _: status_of(row.kind, row.failure),
    "FlowEvent.failure": lambda row, _: row.failure,
    "FlowEvent.connectorId": lambda row, _: _id("Connector", row.connector_id),
    "FlowEvent.remoteNetworkId": lambda row, _: _id("RemoteNetwork", row.remote_network_id),
    "FlowEvent.serviceAccountId": lambda row, _: _id("ServiceAccount", row.service_account_id),
    "FlowEvent.serviceKeyId": lambda row, _: _id("ServiceAccountKey", row.service_key_id),
    "FlowEvent.resourceId": lambda row, _: _id("Resource", row.resource_id),
    "FlowEvent.resourceName": _resource_name,
    "FlowEvent.event": lambda row, _: row.event,
}
