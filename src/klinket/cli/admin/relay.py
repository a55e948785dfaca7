"""`klinket admin relay`: which relays there are, and their end."""

from __future__ import annotations

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.named import RELAY
from klinket.cli.admin.output import show_object, show_rows, told

SELECTION = "id name address certificateSha256 isOnline connectorCount createdAt"


@click.group()
def relay() -> None:
    """Relays: join clients with connectors. They are made with `klinket issue relay-token`, on the controller's machine.

    \b
    example: klinket admin relay list
    """


@relay.command("list")
@with_api
def list_relays(api: AdminApiClient, as_json: bool) -> None:
    """List all relays.

    \b
    example: klinket admin relay list
    """
    columns = {"ID": "id", "NAME": "name", "ADDRESS": "address", "ONLINE": "isOnline", "CONNECTORS": "connectorCount"}
    empty = "no relay yet: klinket issue relay-token NAME --state DIR, on the controller's machine"
    show_rows(list(RELAY.rows(api, SELECTION)), columns, as_json=as_json, empty=empty)


@relay.command()
@RELAY.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one relay, by name or id.

    \b
    example: klinket admin relay show frankfurt-1
    """
    show_object(RELAY.find(api, name, SELECTION), as_json=as_json)


@relay.command()
@RELAY.argument()
@with_api
def remove(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Remove a relay. Its token is dead; clients and connectors go on with the others, without a restart.

    Connections that are joined there are reset. End its process afterwards.

    \b
    example: klinket admin relay remove frankfurt-1
    """
    api.extension.mutate("relayDelete", id=("ID!", RELAY.find(api, name)["id"]))
    told(f"removed relay {name}; now end its process", as_json=as_json)
