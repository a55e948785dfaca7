"""Resource: queries, fields, mutations."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import remote_networks, resources
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import ResourceRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query
from klinket.controller.graphql.resolvers import security_policies
from klinket.controller.graphql.resolvers.access import autolock_days, change_groups, policy_columns, policy_of
from klinket.domain.address import ResourceAddress
from klinket.domain.errors import InvalidInput

TYPE = "Resource"
#: What a resource's accessPolicy is where nothing was set.
_MANUAL = {"access_mode": "MANUAL", "access_duration_seconds": None}


@query
def _one(context: RequestContext, id: str) -> ResourceRow | None:
    number = number_of(id, TYPE)
    return context.tx.resources.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    rows = by_name(context.tx.resources.all(), filter)
    given = filter or {}
    if (networks := given.get("remoteNetworkId")) is not None:
        rows = [row for row in rows if _in_networks(row, networks)]
    for wanted in (given.get("tags") or {}).get("and") or ():
        rows = [row for row in rows if _has_tag(row, wanted)]
    return context.connection(rows, page)


def _in_networks(row: ResourceRow, condition: dict[str, Any]) -> bool:
    id = to_global_id("RemoteNetwork", row.remote_network_id)
    if condition.get("eq") is not None and id != condition["eq"]:
        return False
    return condition.get("in") is None or id in condition["in"]


def _has_tag(row: ResourceRow, wanted: dict[str, Any]) -> bool:
    values = [tag["value"] for tag in row.tags if tag["key"] == wanted["key"]]
    condition = wanted.get("value") or {}
    if not values:
        return False
    if condition.get("eq") is not None and values[0] != condition["eq"]:
        return False
    return condition.get("in") is None or values[0] in condition["in"]


@mutation(WRITE)
def _create(context: RequestContext, name: str, address: str, remoteNetworkId: str, **given: Any) -> dict[str, Any]:
    network = remote_networks.get(context.tx, number_of(remoteNetworkId, "RemoteNetwork"), remoteNetworkId)
    visible = given.get("isVisible")
    row = resources.create(
        context.tx,
        context.caller.actor,
        name=name,
        address=address,
        remote_network_id=network.id,
        protocols=given.get("protocols"),
        alias=given.get("alias"),
        is_visible=True if visible is None else visible,
        is_browser_shortcut_enabled=bool(given.get("isBrowserShortcutEnabled")),
        routing_mode=given.get("routingMode") or "THROUGH_TWINGATE",
        tags=given.get("tags"),
        approval_mode=given.get("approvalMode") or "MANUAL",
        security_policy_id=security_policies.number(context, given.get("securityPolicyId")),
        **policy_columns(given, unset=_MANUAL),
    )
    change_groups(context, row, given)
    return {"entity": row}


_UNCHANGED_WHEN_NULL = {
    "name": "name",
    "address": "address",
    "protocols": "protocols",
    "isActive": "is_active",
    "isVisible": "is_visible",
    "isBrowserShortcutEnabled": "is_browser_shortcut_enabled",
    "routingMode": "routing_mode",
    "approvalMode": "approval_mode",
}


@mutation(WRITE)
def _update(context: RequestContext, id: str, **given: Any) -> dict[str, Any]:
    row = resources.get(context.tx, number_of(id, TYPE), id)
    changes = {column: given[name] for name, column in _UNCHANGED_WHEN_NULL.items() if given.get(name) is not None}
    if "alias" in given:
        changes["alias"] = given["alias"]
    if "tags" in given:
        changes["tags"] = given["tags"]
    if (network_id := given.get("remoteNetworkId")) is not None:
        network = remote_networks.get(context.tx, number_of(network_id, "RemoteNetwork"), network_id)
        changes["remote_network_id"] = network.id
    if "securityPolicyId" in given:
        changes["security_policy_id"] = security_policies.number(context, given["securityPolicyId"])
    changes.update(policy_columns(given, unset=_MANUAL))
    changed = resources.update(context.tx, context.caller.actor, row, changes)
    change_groups(context, changed, given)
    return {"entity": changed}


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    resources.delete(context.tx, context.caller.actor, resources.get(context.tx, number_of(id, TYPE), id))
    return {}


def _address(row: ResourceRow, _: Any) -> dict[str, Any]:
    try:
        type = ResourceAddress.parse(row.address).api_type
    except InvalidInput:
        type = "DNS"
    return {"type": type, "value": row.address}


FIELDS = {
    "Query.resource": _one,
    "Query.resources": _many,
    "Mutation.resourceCreate": _create,
    "Mutation.resourceUpdate": _update,
    "Mutation.resourceDelete": _delete,
    "NetworkResource.id": lambda row, _: to_global_id(TYPE, row.id),
    "NetworkResource.createdAt": lambda row, _: row.created_at_ms,
    "NetworkResource.updatedAt": lambda row, _: row.updated_at_ms,
    "NetworkResource.name": lambda row, _: row.name,
    "NetworkResource.address": _address,
    "NetworkResource.alias": lambda row, _: row.alias,
    "NetworkResource.protocols": lambda row, _: row.protocols,
    "NetworkResource.isActive": lambda row, _: row.is_active,
    "NetworkResource.isVisible": lambda row, _: row.is_visible,
    "NetworkResource.isBrowserShortcutEnabled": lambda row, _: row.is_browser_shortcut_enabled,
    "NetworkResource.remoteNetwork": lambda row, info: info.context.siblings.parent(
        row, "remote_network_id", info.context.tx.remote_networks
    ),
    "NetworkResource.securityPolicy": lambda row, info: info.context.siblings.parent(
        row, "security_policy_id", info.context.tx.security_policies
    ),
    "NetworkResource.tags": lambda row, _: row.tags,
    "NetworkResource.approvalMode": lambda row, _: row.approval_mode,
    "NetworkResource.accessPolicy": lambda row, _: policy_of(row),
    "NetworkResource.usageBasedAutolockDurationDays": lambda row, _: autolock_days(row),
    "NetworkResource.routingMode": lambda row, _: row.routing_mode,
}
