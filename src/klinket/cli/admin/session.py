"""`klinket admin session`: logged-in client processes."""

from __future__ import annotations

from itertools import islice
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import SERVICE
from klinket.cli.admin.output import show_rows
from klinket.cli.admin.service_key import KEY_OPTION, id_of_key
from klinket.cli.admin.waiting import Waiting, with_wait

SELECTION = "id createdAt serviceAccountId serviceKeyId hostname address clientVersion isAttached endedAt endReason"


@click.group()
def session() -> None:
    """Sessions: logged-in clients of service accounts.

    \b
    example: klinket admin session list
    """


def _names(api: AdminApiClient) -> dict[str, str]:
    """Return the names of service accounts and keys, by id."""
    found = {}
    for key in api.extension.nodes("serviceKeys", "id name serviceAccountId serviceAccountName"):
        found[key["id"]] = key["name"]
        found[key["serviceAccountId"]] = key["serviceAccountName"]
    return found


@session.command("list")
@SERVICE.option("--service", metavar="SERVICE", help="Of this service account, by name or id.")
@KEY_OPTION
@click.option("--ended", is_flag=True, help="Also those that have ended.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="Sessions shown at the most.")
@with_api
def list_sessions(api: AdminApiClient, service: str | None, key: str | None, ended: bool, limit: int, as_json: bool) -> None:
    """List sessions, the newest first.

    \b
    example: klinket admin session list --service ci
    """
    arguments: dict[str, Argument] = {"live": ("Boolean", None if ended else True)}
    if service is not None:
        arguments["serviceAccountId"] = ("ID", SERVICE.find(api, service)["id"])
    if key is not None:
        arguments["serviceKeyId"] = ("ID", id_of_key(api, service, key))
    names = _names(api)

    def row(node: dict[str, Any]) -> dict[str, Any]:
        named = {"service": names.get(node["serviceAccountId"]), "key": names.get(node["serviceKeyId"])}
        return {**node, **{what: name or "(deleted)" for what, name in named.items()}}

    rows = [row(node) for node in islice(api.extension.nodes("sessions", SELECTION, **arguments), limit)]
    columns = {
        "SERVICE": "service", "KEY": "key", "HOST": "hostname", "ADDRESS": "address", "CLIENT": "clientVersion",
        "SINCE": "createdAt", "ATTACHED": "isAttached", "ENDED": "endedAt", "WHY": "endReason", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no session")


@session.command()
@click.argument("id", metavar="ID")
@with_api
@with_wait
def end(api: AdminApiClient, waiting: Waiting, id: str, as_json: bool) -> None:
    """End one session: its flows are cut, and it gets no grants any more. The key stays as it is.

    \b
    example: klinket admin session end ubHpx6g3hcjEyrLmyAoOxg
    """
    payload = api.extension.mutate("sessionEnd", f"entity {{ {SELECTION} }}", id=("ID!", id))
    waiting.tell(f"ended session {id}", payload["entity"], scope=lambda scope: scope == f"session {id}", as_json=as_json)
