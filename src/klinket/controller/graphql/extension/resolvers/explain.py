"""Explanation: why a service account reaches an address, or why not."""

from __future__ import annotations

from typing import Any

from klinket.controller.app.explain import explain
from klinket.controller.graphql.context import RequestContext
from klinket.controller.graphql.global_id import number_of, to_global_id
from klinket.controller.graphql.mutation import query
from klinket.domain.errors import InvalidInput
from klinket.domain.flow import Destination, TransportProtocol


@query
def _explain(
    context: RequestContext, serviceAccountId: str, host: str, port: int, protocol: str | None = None
) -> dict[str, Any] | None:
    number = number_of(serviceAccountId, "ServiceAccount")
    account = context.tx.service_accounts.get(number) if number is not None else None
    if account is None:
        return None
    carried_by = TransportProtocol((protocol or "TCP").lower())
    if carried_by is TransportProtocol.ICMP:
        if port:
            raise InvalidInput("port", "ICMP has no ports: 0")
    elif not 1 <= port <= 65_535:
        raise InvalidInput("port", "ports are 1 to 65535")
    destination = Destination(host, port, carried_by)
    services = context.services
    found = explain(
        context.tx,
        account,
        destination,
        services.attached_connectors(),
        services.listening_connectors(),
        services.account_defaults,
        services.refused_logins,
    )
    return {
        "allowed": found.allowed,
        "resourceId": to_global_id("Resource", found.resource.id) if found.resource else None,
        "resourceName": found.resource.name if found.resource else None,
        "steps": [
            {
                "name": step.name.value,
                "ok": step.ok,
                "text": step.text,
                "evidence": list(step.evidence),
                "hint": step.hint,
                "code": step.code,
            }
            for step in found.steps
        ],
    }


FIELDS = {"Query.explain": _explain}
