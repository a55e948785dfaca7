"""AccountLimits: what a service account may take, all its keys together."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import account_limits, flow_totals, service_accounts
from klinket.controller.app.api_tokens import WRITE
from klinket.controller.app.rows import ServiceAccountRow
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import mutation, query
from klinket.domain.account_limits import BOUNDS

#: The API's names of limits, by those of domain.account_limits.
NAMES = {name: "".join(part.capitalize() if at else part for at, part in enumerate(name.split("_"))) for name in BOUNDS}


def _shown(context: RequestContext, row: ServiceAccountRow) -> dict[str, Any]:
    tx = context.tx
    own = account_limits.own(tx, row.id)
    values = account_limits.as_json(account_limits.of(tx, row.id, context.services.account_defaults))
    return {
        "serviceAccountId": to_global_id("ServiceAccount", row.id),
        "serviceAccountName": row.name,
        **{NAMES[name]: value for name, value in values.items()},
        "own": [NAMES[name] for name in NAMES if name in own],
        "sessions": tx.sessions.count(service_account_id=row.id, ended_at_ms=None),
        "throttledFlows": flow_totals.throttled(tx, row.id),
        "throttledLogins": context.services.refused_logins.total(row.uuid),
    }


@query
def _one(context: RequestContext, serviceAccountId: str) -> dict[str, Any] | None:
    number = number_of(serviceAccountId, "ServiceAccount")
    row = context.tx.service_accounts.get(number) if number is not None else None
    return None if row is None else _shown(context, row)


@mutation(WRITE)
def _set(context: RequestContext, serviceAccountId: str, limits: dict[str, float | None]) -> dict[str, Any]:
    row = service_accounts.get(context.tx, number_of(serviceAccountId, "ServiceAccount"), serviceAccountId)
    given = {name: limits[field] for name, field in NAMES.items() if field in limits}
    account_limits.set_own(context.tx, context.caller.actor, row, given, NAMES)
    return {"entity": _shown(context, row)}


FIELDS = {"Query.accountLimits": _one, "Mutation.accountLimitsSet": _set}
