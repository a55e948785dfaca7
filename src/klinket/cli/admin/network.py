"""`klinket admin network`: remote networks."""

from __future__ import annotations

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, find
from klinket.cli.admin.output import show_object, show_rows, told

SELECTION = "id name location isActive createdAt connectors { totalCount } resources { totalCount }"
LOCATIONS = ["AWS", "AZURE", "GOOGLE_CLOUD", "ON_PREMISE", "OTHER"]


@click.group()
def network() -> None:
    """Remote networks: private networks behind connectors."""


def find_network(api: AdminApiClient, wanted: str) -> dict[str, object]:
    """Return the remote network with this name or id; raises Missing."""
    return find(api.nodes("remoteNetworks", SELECTION), "Remote network", wanted)


def _row(node: dict[str, object]) -> dict[str, object]:
    counts = {key: node[key]["totalCount"] for key in ("connectors", "resources")}  # type: ignore[index]
    return {**node, **counts}


@network.command()
@click.argument("name")
@click.option("--location", type=click.Choice(LOCATIONS, case_sensitive=False), default="OTHER", show_default=True)
@with_api
def create(api: AdminApiClient, name: str, location: str, as_json: bool) -> None:
    """Create a remote network.

    \b
    example: klinket admin network create office
    """
    payload = api.change(
        "remoteNetworkCreate",
        "mutation($name: String!, $location: RemoteNetworkLocation) { remoteNetworkCreate(name: $name, location: $location)"
        " { ok error entity { id name } } }",
        name=name,
        location=location.upper(),
    )
    told(f"created remote network {name}", payload["entity"], as_json=as_json)


@network.command("list")
@with_api
def list_networks(api: AdminApiClient, as_json: bool) -> None:
    """List remote networks."""
    rows = [_row(node) for node in api.nodes("remoteNetworks", SELECTION)]
    columns = {"NAME": "name", "LOCATION": "location", "CONNECTORS": "connectors", "RESOURCES": "resources", "ID": "id"}
    show_rows(rows, columns, as_json=as_json, empty="no remote network yet: klinket admin network create NAME")


@network.command()
@click.argument("name")
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one remote network, by name or id."""
    show_object(_row(find_network(api, name)), as_json=as_json)


@network.command()
@click.argument("name")
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a remote network."""
    api.change(
        "remoteNetworkDelete",
        "mutation($id: ID!) { remoteNetworkDelete(id: $id) { ok error } }",
        id=find_network(api, name)["id"],
    )
    told(f"deleted remote network {name}", as_json=as_json)
