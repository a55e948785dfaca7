"""`klinket admin cut`: cuts and their receipts."""

from __future__ import annotations

from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.output import show_object, show_rows
from klinket.wire.paths import CUTS_PATH


@click.group()
def cut() -> None:
    """Cuts: access that was ended, and what each connector answered."""


def _row(cut: dict[str, Any]) -> dict[str, Any]:
    receipts = cut["receipts"]
    return {
        **cut,
        "flows": sum(len(receipt.get("flows") or []) for receipt in receipts),
        "answered": f"{sum(receipt['state'] == 'answered' for receipt in receipts)} of {len(receipts)}",
        "slowest": max((receipt["took_ms"] for receipt in receipts if receipt.get("took_ms") is not None), default=None),
    }


@cut.command("list")
@with_api
def list_cuts(api: AdminApiClient, as_json: bool) -> None:
    """List cuts, the newest first."""
    cuts = api.get(CUTS_PATH)["cuts"]
    columns = {
        "ID": "id", "TIME": "created_at", "SCOPE": "scope", "REASON": "reason",
        "FLOWS ENDED": "flows", "CONNECTORS": "answered", "SLOWEST MS": "slowest",
    }  # fmt: skip
    show_rows(cuts if as_json else [_row(cut) for cut in cuts], columns, as_json=as_json, empty="nothing was cut yet")


@cut.command()
@click.argument("number", type=int)
@with_api
def show(api: AdminApiClient, number: int, as_json: bool) -> None:
    """Show one cut: per connector the flows it ended, after how many milliseconds, and who has not answered."""
    cut = api.get(f"{CUTS_PATH}/{number}")
    if as_json:
        show_object(cut, as_json=True)
        return
    show_object({key: value for key, value in cut.items() if key != "receipts"}, as_json=False)
    for receipt in cut["receipts"]:
        click.echo("")
        show_object({key: value for key, value in receipt.items() if key != "flows"}, as_json=False)
        if receipt.get("flows"):
            columns = {
                "FLOW": "flow", "HOST": "host", "PORT": "port", "PROTOCOL": "protocol",
                "SESSION": "session", "STOPPED AFTER MS": "stopped_after_ms",
            }  # fmt: skip
            show_rows(receipt["flows"], columns, as_json=False)
