"""`klinket admin device`: devices of people."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Argument
from klinket.cli.admin.named import DEVICE
from klinket.cli.admin.output import show_object, show_rows, told

SELECTION = (
    "id name user { email } isTrusted activeState osName osVersion deviceType hardwareModel manufacturerName hostname username"
    " serialNumber clientVersion lastConnectedAt lastSuccessfulLoginAt lastFailedLoginAt"
)


@click.group()
def device() -> None:
    """Devices: trusted or not, active, blocked or archived.

    \b
    example: klinket admin device list
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "user": node["user"] and node["user"]["email"]}


def _change(api: AdminApiClient, mutation: str, done: str, name: str, as_json: bool, **changes: Argument) -> None:
    id = DEVICE.find(api, name)["id"]
    payload = api.mutate(mutation, f"entity {{ {SELECTION} }}", id=("ID!", id), **changes)
    told(f"{done} device {name}", _row(payload["entity"]), as_json=as_json)


@device.command("list")
@with_api
def list_devices(api: AdminApiClient, as_json: bool) -> None:
    """List devices.

    \b
    example: klinket admin device list
    """
    rows = [_row(node) for node in DEVICE.rows(api, SELECTION)]
    columns = {
        "NAME": "name", "USER": "user", "STATE": "activeState", "TRUSTED": "isTrusted", "OS": "osName",
        "SERIAL NUMBER": "serialNumber", "LAST CONNECTED": "lastConnectedAt", "ID": "id",
    }  # fmt: skip
    show_rows(rows, columns, as_json=as_json, empty="no device has signed in yet")


@device.command()
@DEVICE.argument()
@with_api
def show(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Show one device, by name or id.

    \b
    example: klinket admin device show laptop-7
    """
    show_object(_row(DEVICE.find(api, name, SELECTION)), as_json=as_json)


@device.command()
@DEVICE.argument()
@click.option("--off", is_flag=True, help="Trust it no more.")
@with_api
def trust(api: AdminApiClient, name: str, off: bool, as_json: bool) -> None:
    """Trust a device, or with --off trust it no more.

    \b
    example: klinket admin device trust laptop-7
    """
    done = "trusts no more" if off else "trusts"
    _change(api, "deviceUpdate", f"the network {done}", name, as_json, isTrusted=("Boolean!", not off))


@device.command()
@DEVICE.argument()
@with_api
def block(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Keep a device out.

    \b
    example: klinket admin device block laptop-7
    """
    _change(api, "deviceBlock", "blocked", name, as_json)


@device.command()
@DEVICE.argument()
@with_api
def unblock(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Let a blocked device in again.

    \b
    example: klinket admin device unblock laptop-7
    """
    _change(api, "deviceUnblock", "unblocked", name, as_json)


@device.command()
@DEVICE.argument()
@with_api
def archive(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Archive a device that is used no more.

    \b
    example: klinket admin device archive laptop-7
    """
    _change(api, "deviceArchive", "archived", name, as_json)


@device.command()
@DEVICE.argument()
@with_api
def unarchive(api: AdminApiClient, name: str, as_json: bool) -> None:
    """Bring an archived device back.

    \b
    example: klinket admin device unarchive laptop-7
    """
    _change(api, "deviceUnarchive", "unarchived", name, as_json)
