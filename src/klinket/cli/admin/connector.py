"""`klinket admin connector`: connectors and their tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, find
from klinket.cli.admin.network import find_network
from klinket.cli.admin.output import (
    abandon_secret,
    print_secret,
    reserve_secret,
    show_object,
    show_rows,
    told,
    write_secret,
)

SELECTION = "id name state version hostname publicIP privateIPs lastHeartbeatAt remoteNetwork { id name }"


@click.group()
def connector() -> None:
    """Connectors: they dial out of a private network and carry its flows."""


def find_connector(api: AdminApiClient, wanted: str) -> dict[str, Any]:
    """Return the connector with this name or id; raises Missing."""
    return _row(find(api.nodes("connectors", SELECTION), "Connector", wanted))


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "remoteNetwork": node["remoteNetwork"]["name"]}


@connector.command()
@click.argument("name", required=False)
@click.option("--network", required=True, metavar="NETWORK", help="Remote network, by name or id.")
@with_api
def create(api: AdminApiClient, name: str | None, network: str, as_json: bool) -> None:
    """Create a connector; without NAME the controller makes one up.

    \b
    example: klinket admin connector create --network office office-1
    """
    payload = api.change(
        "connectorCreate",
        "mutation($network: ID!, $name: String) { connectorCreate(remoteNetworkId: $network, name: $name)"
        " { ok error entity { id name } } }",
        network=find_network(api, network)["id"],
        name=name,
    )
    entity = payload["entity"]
    told(
        f"created connector {entity['name']}; next: klinket admin connector tokens {entity['name']} --out FILE",
        entity,
        as_json=as_json,
    )


@connector.command("list")
@with_api
def list_connectors(api: AdminApiClient, as_json: bool) -> None:
    """List connectors with state and version."""
    rows = [_row(node) for node in api.nodes("connectors", SELECTION)]
    columns = {
        "NAME": "name", "NETWORK": "remoteNetwork", "STATE": "state", "VERSION": "version",
        "HOST": "hostname", "LAST HEARTBEAT": "lastHeartbeatAt", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no connector yet: klinket admin connector create --network NETWORK")


@connector.command()
@click.argument("name")
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one connector, by name or id."""
    show_object(find_connector(api, name), as_json=as_json)


@connector.command()
@click.argument("name")
@with_api
def delete(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Delete a connector; its flows end."""
    api.change(
        "connectorDelete",
        "mutation($id: ID!) { connectorDelete(id: $id) { ok error } }",
        id=find_connector(api, name)["id"],
    )
    told(f"deleted connector {name}", as_json=as_json)


@connector.command()
@click.argument("name")
@click.option("--out", metavar="FILE", help="Write the tokens file there, mode 0600, instead of to stdout.")
@with_api
def tokens(api: AdminApiClient, name: str, out: str | None, as_json: bool) -> None:
    """Issue a new token pair; every earlier pair of this connector becomes invalid.

    \b
    example: klinket admin connector tokens office-1 --out office-1.json
    """
    node = find_connector(api, name)
    descriptor = reserve_secret(out) if out else None
    try:
        payload = api.change(
            "connectorGenerateTokens",
            "mutation($id: ID!) { connectorGenerateTokens(connectorId: $id)"
            " { ok error connectorTokens { accessToken refreshToken } } }",
            id=node["id"],
        )
    except BaseException:
        if descriptor is not None and out:
            abandon_secret(descriptor, out)
        raise
    pair = payload["connectorTokens"]
    text = json.dumps(
        {
            "url": api.url,
            "access_token": pair["accessToken"],
            "refresh_token": pair["refreshToken"],
            "controller_ca": Path(api.authority).read_text() if api.authority else None,
        },
        indent=2,
    )
    if descriptor is None:
        print_secret(text)
    else:
        write_secret(descriptor, text)
        told(f"wrote {out}; start with: klinket connector --tokens-file {out}", {"file": out}, as_json=as_json)
