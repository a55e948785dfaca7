"""`klinket admin connector`: connectors and their tokens."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import CONNECTOR, NETWORK
from klinket.cli.admin.output import (
    abandon_secret,
    print_secret,
    reserve_secret,
    show_object,
    show_rows,
    told,
    write_secret,
)
from klinket.cli.admin.params import FILE, NAME
from klinket.cli.admin.waiting import Waiting, show_foreseen, with_wait
from klinket.domain.errors import InvalidInput

SELECTION = (
    "id name state version hostname publicIP privateIPs lastHeartbeatAt hasStatusNotificationsEnabled remoteNetwork { id name }"
)
_NOTIFICATIONS = click.option("--notify/--no-notify", default=None, help="Whether changes of its state are notified; stored.")


@click.group()
def connector() -> None:
    """Connectors: they dial out of a private network and carry its flows.

    \b
    example: klinket admin connector create --network office office-1
    """


def find_connector(api: AdminApiClient, wanted: str) -> dict[str, Any]:
    """Return the connector with this name or id; raises NotFound."""
    return _row(CONNECTOR.find(api, wanted, SELECTION))


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "remoteNetwork": node["remoteNetwork"]["name"]}


def _update(api: AdminApiClient, name: str, /, **changes: Argument) -> dict[str, Any]:
    id = CONNECTOR.find(api, name)["id"]
    return _row(api.mutate("connectorUpdate", f"entity {{ {SELECTION} }}", id=("ID!", id), **changes)["entity"])


@connector.command()
@click.argument("name", type=NAME, required=False)
@NETWORK.option("--network", required=True, metavar="NETWORK", help="Remote network, by name or id.")
@_NOTIFICATIONS
@with_api
def create(api: AdminApiClient, name: str | None, network: str, notify: bool | None, as_json: bool) -> None:
    """Create a connector; without NAME the controller makes one up.

    \b
    example: klinket admin connector create --network office office-1
    """
    payload = api.mutate(
        "connectorCreate",
        "entity { id name }",
        remoteNetworkId=("ID!", NETWORK.find(api, network)["id"]),
        name=("String", name),
        hasStatusNotificationsEnabled=("Boolean", notify),
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
    """List connectors with state and version.

    \b
    example: klinket admin connector list
    """
    rows = [_row(node) for node in CONNECTOR.rows(api, SELECTION)]
    columns = {
        "NAME": "name", "NETWORK": "remoteNetwork", "STATE": "state", "VERSION": "version",
        "HOST": "hostname", "LAST HEARTBEAT": "lastHeartbeatAt", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no connector yet: klinket admin connector create --network NETWORK")


@connector.command()
@CONNECTOR.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one connector, by name or id.

    \b
    example: klinket admin connector show office-1
    """
    show_object(find_connector(api, name), as_json=as_json)


@connector.command()
@CONNECTOR.argument()
@click.argument("new_name", type=NAME)
@with_api
def rename(api: AdminApiClient, name: str, new_name: str, as_json: bool) -> None:
    """Rename a connector.

    \b
    example: klinket admin connector rename brave-otter office-1
    """
    told(f"renamed connector {name} to {new_name}", _update(api, name, name=("String", new_name)), as_json=as_json)


@connector.command()
@CONNECTOR.argument()
@click.option("--name", "new_name", type=NAME, metavar="NAME", help="A new name.")
@_NOTIFICATIONS
@with_api
def update(api: AdminApiClient, name: str, new_name: str | None, notify: bool | None, as_json: bool) -> None:
    """Change a connector.

    \b
    example: klinket admin connector update office-1 --no-notify
    """
    if new_name is None and notify is None:
        raise InvalidInput("options", "nothing to change", hint="see klinket admin connector update --help")
    changed = _update(api, name, name=("String", new_name), hasStatusNotificationsEnabled=("Boolean", notify))
    told(f"changed connector {name}", changed, as_json=as_json)


@connector.command()
@CONNECTOR.argument()
@with_api
@with_wait
def delete(api: AdminApiClient, waiting: Waiting, name: str, as_json: bool) -> None:
    """Delete a connector; its flows end.

    \b
    example: klinket admin connector delete office-1 --wait
    """
    node = CONNECTOR.find(api, name)
    api.mutate("connectorDelete", id=("ID!", node["id"]))
    wanted = f"connector {CONNECTOR.number(node)}"
    waiting.tell(f"deleted connector {name}", scope=lambda scope: scope == wanted, as_json=as_json)


@connector.command()
@CONNECTOR.argument()
@click.option("--out", type=FILE, metavar="FILE", help="Write the tokens file there, mode 0600, instead of to stdout.")
@click.option("--dry-run", is_flag=True, help="Change nothing: say which live flows would end.")
@with_api
def tokens(api: AdminApiClient, name: str, out: str | None, dry_run: bool, as_json: bool) -> None:
    """Issue a new token pair; every earlier pair of this connector becomes invalid, and its flows end at once.

    \b
    example: klinket admin connector tokens office-1 --out office-1.json
    """
    node = find_connector(api, name)
    if dry_run:
        api = api.rehearsing
        api.mutate("connectorGenerateTokens", connectorId=("ID!", node["id"]))
        show_foreseen(api.would_cut or [], as_json=as_json)
        return
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
        start = f"klinket connector --tokens-file {shlex.quote(out or '')} --state DIR"
        told(f"wrote {out}; start it, with a folder of its own as DIR: {start}", {"file": out}, as_json=as_json)
