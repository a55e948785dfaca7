"""User: queries, fields, mutations."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import groups, users
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import UserRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.filters import matches_text
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query

TYPE = "User"


@query
def _one(context: RequestContext, id: str) -> UserRow | None:
    number = number_of(id, TYPE)
    return context.tx.users.get(number) if number is not None else None


@query
def _many(context: RequestContext, filter: dict[str, Any] | None = None, **page: Any) -> dict[str, Any]:
    given = filter or {}
    roles = (given.get("role") or {}).get("in")
    rows = [
        row
        for row in context.tx.users.find()
        if matches_text(row.first_name or "", given.get("firstName"))
        and matches_text(row.last_name or "", given.get("lastName"))
        and matches_text(row.email, given.get("email"))
        and (roles is None or row.role in roles)
    ]
    return context.connection(rows, page)


def _found(context: RequestContext, id: str) -> UserRow:
    return users.get(context.tx, number_of(id, TYPE), id)


@mutation(WRITE)
def _create(
    context: RequestContext,
    email: str,
    firstName: str | None = None,
    lastName: str | None = None,
    role: str | None = None,
    shouldSendInvite: bool | None = None,
) -> dict[str, Any]:
    row = users.create(
        context.tx, context.caller.actor, email=email, first_name=firstName, last_name=lastName, role=role or "MEMBER"
    )
    return {"entity": row}


@mutation(WRITE)
def _update(
    context: RequestContext, id: str, firstName: str | None = None, lastName: str | None = None, state: str | None = None
) -> dict[str, Any]:
    row = users.update(
        context.tx, context.caller.actor, _found(context, id), first_name=firstName, last_name=lastName, state=state
    )
    return {"entity": row}


@mutation(WRITE)
def _set_role(context: RequestContext, id: str, role: str) -> dict[str, Any]:
    return {"entity": users.set_role(context.tx, context.caller.actor, _found(context, id), role)}


@mutation(WRITE)
def _delete(context: RequestContext, id: str) -> dict[str, Any]:
    users.delete(context.tx, context.caller.actor, _found(context, id))
    return {}


@mutation(WRITE)
def _reset(context: RequestContext, id: str) -> dict[str, Any]:
    users.reset_second_factor(context.tx, context.caller.actor, _found(context, id))
    return {}


FIELDS = {
    "Query.user": _one,
    "Query.users": _many,
    "Mutation.userCreate": _create,
    "Mutation.userDetailsUpdate": _update,
    "Mutation.userRoleUpdate": _set_role,
    "Mutation.userDelete": _delete,
    "Mutation.userResetMfa": _reset,
    "User.id": lambda row, _: to_global_id(TYPE, row.id),
    "User.createdAt": lambda row, _: row.created_at_ms,
    "User.updatedAt": lambda row, _: row.updated_at_ms,
    "User.firstName": lambda row, _: row.first_name,
    "User.lastName": lambda row, _: row.last_name,
    "User.email": lambda row, _: row.email,
    "User.avatarUrl": lambda _row, _: None,
    "User.state": lambda row, _: row.state,
    "User.role": lambda row, _: row.role,
    "User.type": lambda row, _: row.user_type,
    "User.groups": lambda row, info, **page: info.context.connection(groups.of_user(info.context.tx, row), page),
}
