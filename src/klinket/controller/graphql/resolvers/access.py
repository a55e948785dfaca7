"""Access to resources: edges and mutations, for groups and service accounts alike."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import access, access_policy, group_access, groups, resources, service_accounts
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import AccessRow, GroupAccessRow, GroupRow, ResourceRow, ServiceAccountRow
from klinket.controller.graphql.changes import wanted_ids
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import from_global_id, number_of
from klinket.controller.graphql.mutation import mutation
from klinket.controller.graphql.resolvers import security_policies
from klinket.domain.errors import NotFound

Principal = ServiceAccountRow | GroupRow


def _principal(context: RequestContext, id: str) -> Principal:
    parsed = from_global_id(id)
    if parsed is not None and parsed[0] == "ServiceAccount":
        return service_accounts.get(context.tx, parsed[1], id)
    if parsed is not None and parsed[0] == "Group":
        return groups.get(context.tx, parsed[1], id)
    raise NotFound("Principal", id)


def _resource(context: RequestContext, id: str) -> ResourceRow:
    return resources.get(context.tx, number_of(id, "Resource"), id)


def policy_columns(given: dict[str, Any], *, unset: dict[str, Any]) -> dict[str, Any]:
    """Return the columns of accessPolicy, or of its older spelling in days; `unset` where null days take them away."""
    policy, days = given.get("accessPolicy"), given.get("usageBasedAutolockDurationDays")
    if policy is not None:
        seconds = access_policy.check_duration(policy["mode"], policy.get("durationSeconds"))
        return {"access_mode": policy["mode"], "access_duration_seconds": seconds}
    if days is not None:
        seconds = access_policy.seconds_of_days(days)
        return {"access_mode": access_policy.AUTO_LOCK, "access_duration_seconds": seconds}
    return unset if "usageBasedAutolockDurationDays" in given else {}


def policy_of(row: ResourceRow | GroupAccessRow) -> dict[str, Any] | None:
    """Return accessPolicy as the API shows it; None: as set on the resource."""
    return None if row.access_mode is None else {"mode": row.access_mode, "durationSeconds": row.access_duration_seconds}


def autolock_days(row: ResourceRow | GroupAccessRow) -> int | None:
    """Return the older spelling of accessPolicy, in days."""
    if row.access_mode != access_policy.AUTO_LOCK or row.access_duration_seconds is None:
        return None
    return row.access_duration_seconds // access_policy.SECONDS_PER_DAY


def _grant(context: RequestContext, row: ResourceRow, principal: Principal, given: dict[str, Any]) -> None:
    """Grant, or change the settings. For a service account only expiresAt counts."""
    tx, actor = context.tx, context.caller.actor
    if isinstance(principal, ServiceAccountRow):
        access.grant(tx, actor, row, principal, given.get("expiresAt"))
        return
    unset = {"access_mode": None, "access_duration_seconds": None}
    group_access.grant(
        tx,
        actor,
        row,
        principal,
        expires_at_ms=given.get("expiresAt"),
        security_policy_id=security_policies.number(context, given.get("securityPolicyId")),
        approval_mode=given.get("approvalMode"),
        **{**unset, **policy_columns(given, unset=unset)},
    )


def _revoke(context: RequestContext, row: ResourceRow, principal: Principal) -> None:
    if isinstance(principal, ServiceAccountRow):
        access.revoke(context.tx, context.caller.actor, row, principal)
    else:
        group_access.revoke(context.tx, context.caller.actor, row, principal)


def _holders(context: RequestContext, row: ResourceRow) -> list[Principal]:
    tx = context.tx
    group_ids = [one.group_id for one in tx.group_access.find(resource_id=row.id)]
    account_ids = [one.service_account_id for one in tx.access.find(resource_id=row.id)]
    return [*tx.groups.find(id=group_ids), *tx.service_accounts.find(id=account_ids)]


@mutation(WRITE)
def _add(context: RequestContext, resourceId: str, access: list[dict[str, Any]]) -> dict[str, Any]:
    row = _resource(context, resourceId)
    for given in access:
        _grant(context, row, _principal(context, given["principalId"]), given)
    return {"entity": row}


@mutation(WRITE)
def _set(context: RequestContext, resourceId: str, access: list[dict[str, Any]]) -> dict[str, Any]:
    row = _resource(context, resourceId)
    wanted = [(_principal(context, given["principalId"]), given) for given in access]
    for principal in _holders(context, row):
        if principal not in [one for one, _ in wanted]:
            _revoke(context, row, principal)
    for principal, given in wanted:
        _grant(context, row, principal, given)
    return {"entity": row}


@mutation(WRITE)
def _remove(context: RequestContext, resourceId: str, principalIds: list[str]) -> dict[str, Any]:
    row = _resource(context, resourceId)
    for id in principalIds:
        try:
            principal = _principal(context, id)
        except NotFound:
            continue  # it has no access: that is what was asked for
        _revoke(context, row, principal)
    return {"entity": row}


def change_groups(context: RequestContext, row: ResourceRow, given: dict[str, Any]) -> None:
    """Carry out groupIds, addedGroupIds and removedGroupIds of a resource; service accounts stay."""
    tx, actor = context.tx, context.caller.actor

    def find(id: str) -> GroupRow:
        return groups.get(tx, number_of(id, "Group"), id)

    before = {one.group_id for one in tx.group_access.find(resource_id=row.id)}
    wanted = wanted_ids(
        before,
        find,
        replace=given.get("groupIds"),
        added=given.get("addedGroupIds"),
        removed=given.get("removedGroupIds"),
    )
    for group in tx.groups.find(id=before - wanted):
        group_access.revoke(tx, actor, row, group)
    for group in tx.groups.find(id=wanted - before):
        group_access.grant(tx, actor, row, group)


def _edges(row: ResourceRow, info: Any, **page: Any) -> dict[str, Any]:
    context: RequestContext = info.context
    tx, siblings = context.tx, context.siblings
    rows: list[AccessRow | GroupAccessRow] = [
        *siblings.children(row, tx.group_access, "resource_id"),
        *siblings.children(row, tx.access, "resource_id"),
    ]

    def edge(one: AccessRow | GroupAccessRow) -> dict[str, Any]:
        if isinstance(one, AccessRow):
            node = siblings.parent(one, "service_account_id", tx.service_accounts)
            return {"node": node, "expiresAt": one.expires_at_ms}
        return {
            "node": siblings.parent(one, "group_id", tx.groups),
            "expiresAt": one.expires_at_ms,
            "securityPolicy": siblings.parent(one, "security_policy_id", tx.security_policies),
            "usageBasedAutolockDurationDays": autolock_days(one),
            "approvalMode": one.approval_mode,
            "accessPolicy": policy_of(one),
        }

    return context.connection(rows, page, edge)


FIELDS = {
    "Mutation.resourceAccessAdd": _add,
    "Mutation.resourceAccessSet": _set,
    "Mutation.resourceAccessRemove": _remove,
    "NetworkResource.access": _edges,
}
