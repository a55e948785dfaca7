"""`klinket admin network`: remote networks."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import NETWORK
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.cli.admin.params import NAME
from klinket.cli.admin.waiting import Waiting, with_wait
from klinket.domain.errors import InvalidInput

SELECTION = "id name location networkType isActive createdAt connectors { totalCount } resources { totalCount }"
LOCATIONS = click.Choice(["AWS", "AZURE", "GOOGLE_CLOUD", "ON_PREMISE", "OTHER"], case_sensitive=False)


@click.group()
def network() -> None:
    """Remote networks: private networks behind connectors.

    \b
    example: klinket admin network create office
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    counts = {key: node[key]["totalCount"] for key in ("connectors", "resources")}
    return {**node, **counts}


def _update(api: AdminApiClient, name: str, /, **changes: Argument) -> dict[str, Any]:
    id = NETWORK.find(api, name)["id"]
    entity: dict[str, Any] = api.mutate("remoteNetworkUpdate", f"entity {{ {SELECTION} }}", id=("ID!", id), **changes)["entity"]
    return _row(entity)


@network.command()
@click.argument("name", type=NAME)
@click.option("--location", type=LOCATIONS, default="OTHER", show_default=True)
@click.option("--inactive", is_flag=True, help="Make it, and leave it unused for now.")
@click.option("--type", "kind", type=click.Choice(["regular", "exit"]), default="regular", show_default=True)
@with_api
def create(api: AdminApiClient, name: str, location: str, inactive: bool, kind: str, as_json: bool) -> None:
    """Create a remote network.

    \b
    example: klinket admin network create office
    """
    payload = api.mutate(
        "remoteNetworkCreate",
        "entity { id name }",
        name=("String!", name),
        location=("RemoteNetworkLocation", location.upper()),
        isActive=("Boolean", not inactive),
        networkType=("RemoteNetworkType", kind.upper()),
    )
    told(f"created remote network {name}", payload["entity"], as_json=as_json)


@network.command("list")
@with_api
def list_networks(api: AdminApiClient, as_json: bool) -> None:
    """List remote networks.

    \b
    example: klinket admin network list
    """
    rows = [_row(node) for node in NETWORK.rows(api, SELECTION)]
    columns = {"NAME": "name", "LOCATION": "location", "CONNECTORS": "connectors", "RESOURCES": "resources", "ID": "id"}
    show_rows(rows, columns, as_json=as_json, empty="no remote network yet: klinket admin network create NAME")


@network.command()
@NETWORK.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one remote network, by name or id.

    \b
    example: klinket admin network show office
    """
    show_object(_row(NETWORK.find(api, name, SELECTION)), as_json=as_json)


@network.command()
@NETWORK.argument()
@click.argument("new_name", type=NAME)
@with_api
def rename(api: AdminApiClient, name: str, new_name: str, as_json: bool) -> None:
    """Rename a remote network.

    \b
    example: klinket admin network rename office hq
    """
    told(f"renamed remote network {name} to {new_name}", _update(api, name, name=("String", new_name)), as_json=as_json)


@network.command()
@NETWORK.argument()
@click.option("--name", "new_name", type=NAME, metavar="NAME", help="A new name.")
@click.option("--location", type=LOCATIONS, help="Where it is.")
@click.option("--active/--inactive", default=None, help="Whether it is in use.")
@with_api
@with_wait
def update(
    api: AdminApiClient,
    waiting: Waiting,
    name: str,
    new_name: str | None,
    location: str | None,
    active: bool | None,
    as_json: bool,
) -> None:
    """Change a remote network; flows in one that is made inactive end at once.

    \b
    example: klinket admin network update office --location ON_PREMISE
    """
    changes: dict[str, Argument] = {}
    if new_name is not None:
        changes["name"] = ("String", new_name)
    if location is not None:
        changes["location"] = ("RemoteNetworkLocation", location.upper())
    if active is not None:
        changes["isActive"] = ("Boolean", active)
    if not changes:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin network update --help")
    row = _update(api, name, **changes)
    waiting.tell(f"changed remote network {name}", row, scope=lambda scope: scope.startswith("resource "), as_json=as_json)


@network.command()
@NETWORK.argument()
@with_api
@with_wait
def delete(api: AdminApiClient, waiting: Waiting, name: str, as_json: bool) -> None:
    """Delete a remote network.

    \b
    example: klinket admin network delete office
    """
    api.mutate("remoteNetworkDelete", id=("ID!", NETWORK.find(api, name)["id"]))
    waiting.tell(
        f"deleted remote network {name}", scope=lambda scope: scope.startswith(("resource ", "connector ")), as_json=as_json
    )
