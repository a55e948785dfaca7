"""`klinket admin resource grant`: access of groups and service accounts to a resource."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.named import GROUP, POLICY, RESOURCE, SERVICE
from klinket.cli.admin.output import told
from klinket.cli.admin.params import ACCESS_POLICY, LATER
from klinket.cli.admin.waiting import Waiting, access_to, with_wait
from klinket.domain.errors import InvalidInput

_ACCESS = (
    "query($id: ID!, $after: String) { resource(id: $id) { access(first: 100, after: $after) { pageInfo { hasNextPage endCursor }"
    " edges { expiresAt approvalMode accessPolicy { mode durationSeconds } securityPolicy { name } node { __typename"
    " ... on ServiceAccount { id name } ... on Group { id name } } } } } }"
)
_GROUPS = GROUP.option("--group", "groups", multiple=True, metavar="GROUP", help="By name or id; may be repeated.")
_SERVICES = SERVICE.option("--service", "services", multiple=True, metavar="SERVICE", help="By name or id; may be repeated.")


def access_of(api: AdminApiClient, resource: str) -> list[dict[str, Any]]:
    """Return who may use the resource with this id, as rows of `__typename`, `id`, `name` and what holds for them."""
    rows: list[dict[str, Any]] = []
    after = None
    while True:
        found = api.execute(_ACCESS, id=resource, after=after)["resource"]
        if found is None:  # deleted in the meantime
            return rows
        for edge in found["access"]["edges"]:
            own = {
                "expiresAt": edge["expiresAt"],
                "policy": edge["securityPolicy"] and edge["securityPolicy"]["name"],
                "approval": edge["approvalMode"],
                "accessPolicy": edge["accessPolicy"],
            }
            rows.append({**edge["node"], **own})
        if not found["access"]["pageInfo"]["hasNextPage"]:
            return rows
        after = found["access"]["pageInfo"]["endCursor"]


def _principals(api: AdminApiClient, groups: tuple[str, ...], services: tuple[str, ...]) -> list[str]:
    if not groups and not services:
        raise InvalidInput("options", "nobody is named", hint="give --group GROUP or --service SERVICE")
    return [GROUP.find(api, one)["id"] for one in groups] + [SERVICE.find(api, one)["id"] for one in services]


@click.command()
@RESOURCE.argument("resource")
@_GROUPS
@_SERVICES
@click.option("--expires", type=LATER, metavar="TIME", help="When the access ends by itself: 30d, 12h or ISO 8601.")
@POLICY.option("--policy", metavar="POLICY", help="Groups: a security policy of its own for this access.")
@click.option("--access-policy", type=ACCESS_POLICY, metavar="POLICY", help="Groups: manual, auto-lock:30d or access-request:8h.")
@click.option("--approval", type=click.Choice(["automatic", "manual"]), help="Groups: how requests are approved.")
@with_api
def grant(
    api: AdminApiClient,
    resource: str,
    groups: tuple[str, ...],
    services: tuple[str, ...],
    expires: str | None,
    policy: str | None,
    access_policy: dict[str, Any] | None,
    approval: str | None,
    as_json: bool,
) -> None:
    """Let groups and service accounts use a resource; whoever has access gets the new settings.

    \b
    example: klinket admin resource grant "Orders database" --group engineers --service ci
    """
    entry = {
        "expiresAt": expires,
        "securityPolicyId": None if policy is None else POLICY.find(api, policy)["id"],
        "accessPolicy": access_policy,
        "approvalMode": approval and approval.upper(),
    }
    access = [{"principalId": id, **entry} for id in _principals(api, groups, services)]
    id = RESOURCE.find(api, resource)["id"]
    api.mutate("resourceAccessAdd", resourceId=("ID!", id), access=("[AccessInput!]!", access))
    told(f"{', '.join([*groups, *services])} may use {resource}", {"access": access_of(api, id)}, as_json=as_json)


@click.command()
@RESOURCE.argument("resource")
@_GROUPS
@_SERVICES
@with_api
@with_wait
def ungrant(
    api: AdminApiClient,
    waiting: Waiting,
    resource: str,
    groups: tuple[str, ...],
    services: tuple[str, ...],
    as_json: bool,
) -> None:
    """Take a resource away from groups and service accounts; flows of services there end at once.

    \b
    example: klinket admin resource ungrant "Orders database" --service ci --wait
    """
    principals = _principals(api, groups, services)
    node = RESOURCE.find(api, resource)
    api.mutate("resourceAccessRemove", resourceId=("ID!", node["id"]), principalIds=("[ID!]!", principals))
    waiting.tell(
        f"{', '.join([*groups, *services])} may not use {resource} any more",
        {"access": access_of(api, node["id"])},
        scope=access_to(RESOURCE.number(node)),
        as_json=as_json,
    )
