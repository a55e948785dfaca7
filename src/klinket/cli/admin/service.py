"""`klinket admin service`: service accounts and what they may reach."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, find
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.cli.admin.resource import find_resource
from klinket.cli.admin.service_key import key
from klinket.cli.admin.time_range import end_of_access

SELECTION = "id name createdAt keys { edges { node { id name status expiresAt } } } resources { edges { node { id name } } }"


@click.group()
def service() -> None:
    """Service accounts: the identities of jobs, daemons and programs."""


service.add_command(key)


def find_service(api: AdminApiClient, wanted: str) -> dict[str, Any]:
    """Return the service account with this name or id; raises Missing."""
    return find(api.nodes("serviceAccounts", SELECTION), "Service account", wanted)


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
@click.argument("name")
@with_api
def create(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Create a service account.

    \b
    example: klinket admin service create ci
    """
    payload = api.change(
        "serviceAccountCreate",
        "mutation($name: String!) { serviceAccountCreate(name: $name) { ok error entity { id name } } }",
        name=name,
    )
    told(f"created service account {name}", payload["entity"], as_json=as_json)


@service.command("list")
@with_api
def list_services(api: AdminApiClient, as_json: bool) -> None:
    """List service accounts with their keys and resources."""
    rows = [_row(node) for node in api.nodes("serviceAccounts", SELECTION)]
    columns = {"NAME": "name", "ACTIVE KEYS": "activeKeys", "KEYS": "keys", "RESOURCES": "resources", "ID": "id"}
    show_rows(rows, columns, as_json=as_json, empty="no service account yet: klinket admin service create NAME")


@service.command()
@click.argument("name")
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one service account, by name or id."""
    show_object(_row(find_service(api, name)), as_json=as_json)


@service.command()
@click.argument("name")
@click.argument("new_name")
@with_api
def rename(api: AdminApiClient, name: str, new_name: str, as_json: bool) -> None:
    """Rename a service account."""
    payload = api.change(
        "serviceAccountUpdate",
        "mutation($id: ID!, $name: String) { serviceAccountUpdate(id: $id, name: $name) { ok error entity { id name } } }",
        id=find_service(api, name)["id"],
        name=new_name,
    )
    told(f"renamed service account {name} to {new_name}", payload["entity"], as_json=as_json)


@service.command()
@click.argument("name")
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a service account with all its keys; its flows end at once."""
    api.change(
        "serviceAccountDelete",
        "mutation($id: ID!) { serviceAccountDelete(id: $id) { ok error } }",
        id=find_service(api, name)["id"],
    )
    told(f"deleted service account {name}", as_json=as_json)


@service.command()
@click.argument("name")
@click.argument("resource")
@click.option(
    "--expires",
    metavar="TIME",
    callback=end_of_access,
    help="When the access ends by itself: 2027-01-01T00:00:00+00:00, in UTC where it names no offset.",
)
@with_api
def grant(api: AdminApiClient, name: str, resource: str, expires: str | None, as_json: bool) -> None:
    """Let a service account reach a resource.

    \b
    example: klinket admin service grant ci "Orders database"
    """
    api.change(
        "resourceAccessAdd",
        "mutation($resource: ID!, $access: [AccessInput!]!) { resourceAccessAdd(resourceId: $resource, access: $access)"
        " { ok error } }",
        resource=find_resource(api, resource)["id"],
        access=[{"principalId": find_service(api, name)["id"], "expiresAt": expires}],
    )
    told(f"{name} may reach {resource}", as_json=as_json)


@service.command()
@click.argument("name")
@click.argument("resource")
@with_api
def ungrant(api: AdminApiClient, name: str, resource: str, as_json: bool) -> None:
    """Take a resource away from a service account; its flows there end at once."""
    api.change(
        "resourceAccessRemove",
        "mutation($resource: ID!, $principals: [ID!]!) { resourceAccessRemove(resourceId: $resource,"
        " principalIds: $principals) { ok error } }",
        resource=find_resource(api, resource)["id"],
        principals=[find_service(api, name)["id"]],
    )
    told(f"{name} may not reach {resource} any more", as_json=as_json)
