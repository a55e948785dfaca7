"""`klinket admin serial-number`: serial numbers of devices that are known to be one's own."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.output import show_rows, told

SELECTION = "id serialNumber createdAt matchedDevices { name }"


@click.group("serial-number")
def serial_number() -> None:
    """Serial numbers of devices that are known to be one's own.

    \b
    example: klinket admin serial-number list
    """


def _row(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "matchedDevices": [device["name"] for device in node["matchedDevices"]]}


@serial_number.command("list")
@with_api
def list_serial_numbers(api: AdminApiClient, as_json: bool) -> None:
    """List serial numbers, and the devices that have them.

    \b
    example: klinket admin serial-number list
    """
    rows = [_row(node) for node in api.nodes("serialNumbers", SELECTION)]
    columns = {"SERIAL NUMBER": "serialNumber", "DEVICES": "matchedDevices", "CREATED": "createdAt", "ID": "id"}
    show_rows(rows, columns, as_json=as_json, empty="no serial number yet: klinket admin serial-number add NUMBER")


@serial_number.command()
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...")
@with_api
def add(api: AdminApiClient, numbers: tuple[str, ...], as_json: bool) -> None:
    """Add serial numbers; one that is there already stays.

    \b
    example: klinket admin serial-number add C02XK1ABJG5H C02XK1ABJG5J
    """
    payload = api.mutate("serialNumbersCreate", f"entities {{ {SELECTION} }}", serialNumbers=("[String!]!", list(numbers)))
    if as_json:
        show_rows([_row(node) for node in payload["entities"]], {}, as_json=True)
    else:
        told(f"added {len(numbers)}: {', '.join(numbers)}", as_json=False)


@serial_number.command()
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...")
@with_api
def remove(api: AdminApiClient, numbers: tuple[str, ...], as_json: bool) -> None:
    """Remove serial numbers.

    \b
    example: klinket admin serial-number remove C02XK1ABJG5H
    """
    api.mutate("serialNumbersDelete", serialNumbers=("[String!]!", list(numbers)))
    told(f"removed {len(numbers)}: {', '.join(numbers)}", as_json=as_json)
