"""`klinket admin service`: service accounts and what they may reach."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.named import RESOURCE, SERVICE
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.cli.admin.params import LATER, NAME
from klinket.cli.admin.service_key import key
from klinket.cli.admin.service_limits import limits
from klinket.cli.admin.waiting import Waiting, access_to, with_wait

SELECTION = "id name createdAt keys { edges { node { id name status expiresAt } } } resources { edges { node { id name } } }"


@click.group()
def service() -> None:
    """Service accounts: the identities of jobs, daemons and programs.

    \b
    example: klinket admin service create ci
    """


service.add_command(key)
service.add_command(limits)


def _row(node: dict[str, Any]) -> dict[str, Any]:
    keys = [edge["node"] for edge in node["keys"]["edges"]]
    return {
        "id": node["id"],
        "name": node["name"],
        "createdAt": node["createdAt"],
        "activeKeys": sum(key["status"] == "ACTIVE" for key in keys),
        "keys": len(keys),
        "resources": [edge["node"]["name"] for edge in node["resources"]["edges"]],
    }


@service.command()
@click.argument("name", type=NAME)
@with_api
def create(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Create a service account.

    \b
    example: klinket admin service create ci
    """
    same = [row["id"] for row in SERVICE.rows(api, "id", eq=name)]
    payload = api.mutate("serviceAccountCreate", "entity { id name }", name=("String!", name))
    told(f"created service account {name}", payload["entity"], as_json=as_json)
    if same:
        click.echo(f"there are now {len(same) + 1} with this name: name them by id ({', '.join(same)} and the new one)", err=True)


@service.command("list")
@with_api
def list_services(api: AdminApiClient, as_json: bool) -> None:
    """List service accounts with their keys and resources.

    \b
    example: klinket admin service list
    """
    rows = [_row(node) for node in SERVICE.rows(api, SELECTION)]
    columns = {"NAME": "name", "ACTIVE KEYS": "activeKeys", "KEYS": "keys", "RESOURCES": "resources", "ID": "id"}
    show_rows(rows, columns, as_json=as_json, empty="no service account yet: klinket admin service create NAME")


@service.command()
@SERVICE.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one service account, by name or id, with its access and when that ends.

    \b
    example: klinket admin service show ci
    """
    node = SERVICE.find(api, name, SELECTION)
    access = [
        {"resource": edge["node"]["name"], "expiresAt": _expiry(api, edge["node"]["id"], node["id"])}
        for edge in node["resources"]["edges"]
    ]
    told_for_people = [f"{one['resource']} (until {one['expiresAt']})" if one["expiresAt"] else one["resource"] for one in access]
    row = _row(node)
    show_object({**row, "access": access} if as_json else {**row, "resources": told_for_people}, as_json=as_json)


def _expiry(api: AdminApiClient, resource: str, account: str) -> str | None:
    """Return when the account's access to the resource ends by itself, or None."""
    document = (
        "query($id: ID!, $after: String) { resource(id: $id) { access(first: 100, after: $after) { pageInfo"
        " { hasNextPage endCursor } edges { expiresAt node { ... on ServiceAccount { id } } } } } }"
    )
    after = None
    while True:
        found = api.execute(document, id=resource, after=after)["resource"]
        if found is None:  # deleted in the meantime
            return None
        for edge in found["access"]["edges"]:
            if edge["node"].get("id") == account:
                expires: str | None = edge["expiresAt"]
                return expires
        if not found["access"]["pageInfo"]["hasNextPage"]:
            return None
        after = found["access"]["pageInfo"]["endCursor"]


@service.command()
@SERVICE.argument()
@click.argument("new_name", type=NAME)
@with_api
def rename(api: AdminApiClient, name: str, new_name: str, as_json: bool) -> None:
    """Rename a service account.

    \b
    example: klinket admin service rename ci ci-main
    """
    id = SERVICE.find(api, name)["id"]
    payload = api.mutate("serviceAccountUpdate", "entity { id name }", id=("ID!", id), name=("String", new_name))
    told(f"renamed service account {name} to {new_name}", payload["entity"], as_json=as_json)


@service.command()
@SERVICE.argument()
@with_api
@with_wait
def delete(api: AdminApiClient, waiting: Waiting, name: str, as_json: bool) -> None:
    """Delete a service account with all its keys; its flows end at once.

    \b
    example: klinket admin service delete ci --wait
    """
    api.mutate("serviceAccountDelete", id=("ID!", SERVICE.find(api, name)["id"]))
    waiting.tell(f"deleted service account {name}", scope=lambda scope: scope.startswith("account "), as_json=as_json)


@service.command()
@SERVICE.argument()
@RESOURCE.argument("resource")
@click.option("--expires", type=LATER, metavar="TIME", help="When the access ends by itself: 30d, 12h or ISO 8601.")
@with_api
def grant(api: AdminApiClient, name: str, resource: str, expires: str | None, as_json: bool) -> None:
    """Let a service account reach a resource.

    \b
    example: klinket admin service grant ci "Orders database" --expires 30d
    """
    api.mutate(
        "resourceAccessAdd",
        resourceId=("ID!", RESOURCE.find(api, resource)["id"]),
        access=("[AccessInput!]!", [{"principalId": SERVICE.find(api, name)["id"], "expiresAt": expires}]),
    )
    told(f"{name} may reach {resource}{f' until {expires}' if expires else ''}", as_json=as_json)


@service.command()
@SERVICE.argument()
@RESOURCE.argument("resource")
@with_api
@with_wait
def ungrant(api: AdminApiClient, waiting: Waiting, name: str, resource: str, as_json: bool) -> None:
    """Take a resource away from a service account; its flows there end at once.

    \b
    example: klinket admin service ungrant ci "Orders database" --wait
    """
    node = RESOURCE.find(api, resource)
    api.mutate("resourceAccessRemove", resourceId=("ID!", node["id"]), principalIds=("[ID!]!", [SERVICE.find(api, name)["id"]]))
    waiting.tell(f"{name} may not reach {resource} any more", scope=access_to(RESOURCE.number(node)), as_json=as_json)
