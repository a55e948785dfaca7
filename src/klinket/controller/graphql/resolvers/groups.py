"""Group: queries, fields, mutations."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import group_access, groups, resources, users
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import GroupRow
from klinket.controller.graphql.changes import given_rows, wanted_ids
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query
from klinket.controller.graphql.resolvers import security_policies

TYPE = "Group"


@query
def _one(context: RequestContext, id: str) -> GroupRow | None:
    number = number_of(id, TYPE)
    return context.tx.groups.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    rows = by_name(context.tx.groups.all(), filter)
    given = filter or {}
    types = (given.get("type") or {}).get("in")
    if types is not None:
        rows = [row for row in rows if row.group_type in types]
    active = (given.get("isActive") or {}).get("eq")
    if active is not None:
        rows = [row for row in rows if row.is_active == active]
    return context.connection(rows, page)


def _user(context: RequestContext) -> Any:
    return lambda id: users.get(context.tx, number_of(id, "User"), id)


def _resource(context: RequestContext) -> Any:
    return lambda id: resources.get(context.tx, number_of(id, "Resource"), id)


@mutation(WRITE)
def _create(
    context: RequestContext,
    name: str,
    userIds: list[str | None] | None = None,
    resourceIds: list[str | None] | None = None,
    securityPolicyId: str | None = None,
) -> dict[str, Any]:
    tx, actor = context.tx, context.caller.actor
    row = groups.create(tx, actor, name=name, security_policy_id=security_policies.number(context, securityPolicyId))
    groups.set_members(tx, actor, row, {user.id for user in given_rows(userIds, _user(context))})
    for resource in given_rows(resourceIds, _resource(context)):
        group_access.grant(tx, actor, resource, row)
    return {"entity": row}


@mutation(WRITE)
def _update(context: RequestContext, id: str, **given: Any) -> dict[str, Any]:
    tx, actor = context.tx, context.caller.actor
    row = groups.get(tx, number_of(id, TYPE), id)
    policy = security_policies.number(context, given.get("securityPolicyId"))
    if any(value is not None for value in (given.get("name"), given.get("isActive"), policy)):
        row = groups.update(tx, actor, row, name=given.get("name"), is_active=given.get("isActive"), security_policy_id=policy)
    if any(given.get(name) is not None for name in ("userIds", "addedUserIds", "removedUserIds")):
        members = wanted_ids(
            groups.member_ids(tx, row),
            _user(context),
            replace=given.get("userIds"),
            added=given.get("addedUserIds"),
            removed=given.get("removedUserIds"),
        )
        groups.set_members(tx, actor, row, members)
    before = {one.resource_id for one in tx.group_access.find(group_id=row.id)}
    wanted = wanted_ids(
        before,
        _resource(context),
        replace=given.get("resourceIds"),
        added=given.get("addedResourceIds"),
        removed=given.get("removedResourceIds"),
    )
    for resource in tx.resources.find(id=before - wanted):
        group_access.revoke(tx, actor, resource, row)
    for resource in tx.resources.find(id=wanted - before):
        group_access.grant(tx, actor, resource, row)
    return {"entity": row}


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    groups.delete(context.tx, context.caller.actor, groups.get(context.tx, number_of(id, TYPE), id))
    return {}


def _users(row: GroupRow, info: Any, **page: Any) -> dict[str, Any]:
    context: RequestContext = info.context
    if row.group_type == groups.SYSTEM:
        return context.connection(context.tx.users.all(), page)
    members = context.siblings.children(row, context.tx.group_members, "group_id")
    return context.connection(context.siblings.across(members, "user_id", context.tx.users), page)


def _resources(row: GroupRow, info: Any, **page: Any) -> dict[str, Any]:
    context: RequestContext = info.context
    links = context.siblings.children(row, context.tx.group_access, "group_id")
    return context.connection(context.siblings.across(links, "resource_id", context.tx.resources), page)


FIELDS = {
    "Query.group": _one,
    "Query.groups": _many,
    "Mutation.groupCreate": _create,
    "Mutation.groupUpdate": _update,
    "Mutation.groupDelete": _delete,
    "Group.id": lambda row, _: to_global_id(TYPE, row.id),
    "Group.createdAt": lambda row, _: row.created_at_ms,
    "Group.updatedAt": lambda row, _: row.updated_at_ms,
    "Group.name": lambda row, _: row.name,
    "Group.originId": lambda row, _: row.origin_id,
    "Group.isActive": lambda row, _: row.is_active,
    "Group.type": lambda row, _: row.group_type,
    "Group.users": _users,
    "Group.resources": _resources,
    "Group.securityPolicy": lambda row, info: info.context.siblings.parent(
        row, "security_policy_id", info.context.tx.security_policies
    ),
}
