"""SecurityPolicy: queries, fields, mutation."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import groups, security_policies
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import SecurityPolicyRow
from klinket.controller.graphql.changes import wanted_ids
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import by_name
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "SecurityPolicy"


@query
def _one(context: RequestContext, id: str | None = None, name: str | None = None) -> SecurityPolicyRow | None:
    if id:
        number = number_of(id, TYPE)
        return context.tx.security_policies.get(number) if number is not None else None
    return next(iter(context.tx.security_policies.find(name=name)), None) if name else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    return context.connection(by_name(context.tx.security_policies.all(), filter), page)


@mutation(WRITE)
def _update(
    context: RequestContext,
    id: str,
    groupIds: list[str | None] | None = None,
    addedGroupIds: list[str | None] | None = None,
    removedGroupIds: list[str | None] | None = None,
) -> dict[str, Any]:
    tx = context.tx
    row = security_policies.get(tx, number_of(id, TYPE), id)
    before = {group.id for group in tx.groups.find(security_policy_id=row.id)}
    wanted = wanted_ids(
        before,
        lambda id: groups.get(tx, number_of(id, "Group"), id),
        replace=groupIds,
        added=addedGroupIds,
        removed=removedGroupIds,
    )
    security_policies.assign(tx, context.caller.actor, row, tx.groups.find(id=wanted))
    return {"entity": row}


def number(context: RequestContext, id: str | None) -> int | None:
    """Return the number of the policy an argument names, None for null and absent; raises NotFound."""
    return security_policies.get(context.tx, number_of(id, TYPE), id).id if id else None


FIELDS = {
    "Query.securityPolicy": _one,
    "Query.securityPolicies": _many,
    "Mutation.securityPolicyUpdate": _update,
    "SecurityPolicy.id": lambda row, _: to_global_id(TYPE, row.id),
    "SecurityPolicy.createdAt": lambda row, _: row.created_at_ms,
    "SecurityPolicy.updatedAt": lambda row, _: row.updated_at_ms,
    "SecurityPolicy.name": lambda row, _: row.name,
    "SecurityPolicy.policyType": lambda row, _: row.policy_type,
    "SecurityPolicy.groups": lambda row, info, **page: info.context.connection(
        info.context.siblings.children(row, info.context.tx.groups, "security_policy_id"), page
    ),
}
