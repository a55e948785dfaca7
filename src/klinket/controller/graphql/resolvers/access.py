"""Access to resources: edges and mutations. Groups follow with users; service accounts are served."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import access, resources, service_accounts
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import AccessRow, ResourceRow, ServiceAccountRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import from_global_id, number_of
from klinket.controller.graphql.mutation import mutation
from klinket.controller.graphql.paging import connection
from klinket.domain.errors import NotFound


def _principal(context: RequestContext, id: str) -> ServiceAccountRow:
    parsed = from_global_id(id)
    if parsed is not None and parsed[0] == "ServiceAccount":
        return service_accounts.get(context.tx, parsed[1], id)
    raise NotFound("Group" if parsed is not None and parsed[0] == "Group" else "Principal", id)


def _resource(context: RequestContext, id: str) -> ResourceRow:
    return resources.get(context.tx, number_of(id, "Resource"), id)


def _grant_all(context: RequestContext, row: ResourceRow, given: list[dict[str, Any]]) -> set[int]:
    """Grant each principal; returns the ids of the accounts. For a service account only expiresAt counts."""
    granted = set()
    for one in given:
        account = _principal(context, one["principalId"])
        access.grant(context.tx, context.caller.actor, row, account, one.get("expiresAt"))
        granted.add(account.id)
    return granted


@mutation(WRITE)
def _add(context: RequestContext, resourceId: str, access: list[dict[str, Any]]) -> dict[str, Any]:
    row = _resource(context, resourceId)
    _grant_all(context, row, access)
    return {"entity": row}


def _set(context: RequestContext, resourceId: str, access: list[dict[str, Any]]) -> dict[str, Any]:
    row = _resource(context, resourceId)
    granted = _grant_all(context, row, access)
    _remove_others(context, row, keep=granted)
    return {"entity": row}


def _remove_others(context: RequestContext, row: ResourceRow, keep: set[int]) -> None:
    for one in context.tx.access.find(resource_id=row.id):
        if one.service_account_id not in keep:
            account = context.tx.service_accounts.get(one.service_account_id)
            assert account is not None
            access.revoke(context.tx, context.caller.actor, row, account)


@mutation(WRITE)
def _remove(context: RequestContext, resourceId: str, principalIds: list[str]) -> dict[str, Any]:
    row = _resource(context, resourceId)
    for id in principalIds:
        number = number_of(id, "ServiceAccount")
        account = context.tx.service_accounts.get(number) if number is not None else None
        if account is not None:
            access.revoke(context.tx, context.caller.actor, row, account)
    return {"entity": row}


def _edges(row: ResourceRow, info: Any, **page: Any) -> dict[str, Any]:
    tx = info.context.tx
    rows = tx.access.find(resource_id=row.id)
    accounts = {one.id: one for one in tx.service_accounts.find(id=[one.service_account_id for one in rows])}

    def edge(one: AccessRow) -> dict[str, Any]:
        return {
            "node": accounts[one.service_account_id],
            "expiresAt": one.expires_at_ms,
            "securityPolicy": None,
            "usageBasedAutolockDurationDays": None,
            "approvalMode": None,
            "accessPolicy": None,
        }

    return connection(rows, page, edge)


FIELDS = {
    "Mutation.resourceAccessAdd": _add,
    "Mutation.resourceAccessSet": mutation(WRITE)(_set),
    "Mutation.resourceAccessRemove": _remove,
    "NetworkResource.access": _edges,
}
