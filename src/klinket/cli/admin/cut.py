"""`klinket admin cut`: cuts and their receipts. What was cut is told by name; `--json` has the ids besides."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient, Missing
from klinket.cli.admin.output import show_object, show_rows
from klinket.domain.errors import InvalidInput, NotFound
from klinket.wire.paths import CUTS_PATH

#: The newest cuts, which a list holds at the most.
LISTED = 100
PENDING = "pending"
#: Of a flow whose connector did not tell where it led.
NO_DESTINATION = "destination not known"


@click.group()
def cut() -> None:
    """Cuts: access that was ended, and what each connector answered.

    \b
    example: klinket admin cut show 7
    """


def newest_cuts(api: AdminApiClient) -> list[dict[str, Any]]:
    """Return the newest cuts with ids and receipts, the newest first."""
    found: list[dict[str, Any]] = api.get(CUTS_PATH)["cuts"]
    return found


def find_cut(api: AdminApiClient, number: int) -> dict[str, Any]:
    """Return a cut with its receipts, and as `what` what was cut, by name; raises Missing."""
    try:
        found: dict[str, Any] = api.get(f"{CUTS_PATH}/{number}")
        return found
    except (Missing, NotFound) as error:
        raise Missing(f"Cut with id '{number}' does not exist", hint="see what there is: klinket admin cut list") from error


def _id(number: int) -> str:
    return base64.b64encode(f"Cut:{number}".encode()).decode()


def is_complete(cut: dict[str, Any]) -> bool:
    """Return whether every connector concerned has answered."""
    return all(receipt["state"] != PENDING for receipt in cut["receipts"])


def moment(milliseconds: int | None) -> str | None:
    """Return milliseconds since the epoch as ISO 8601 in UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _row(cut: dict[str, Any]) -> dict[str, Any]:
    receipts, actor = cut["receipts"], cut["actor"]
    name = (actor.get("info") or {}).get("name") or actor.get("id")
    return {
        **cut,
        "flows": sum(len(receipt.get("flows") or []) for receipt in receipts),
        "answered": f"{sum(receipt['state'] != PENDING for receipt in receipts)} of {len(receipts)}",
        "slowest": max((receipt["took_ms"] for receipt in receipts if receipt.get("took_ms") is not None), default=None),
        "who": f"{actor['type']} {name}" if name else actor["type"],
    }


@cut.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, LISTED), help="Cuts shown at the most.")
@with_api
def list_cuts(api: AdminApiClient, limit: int, as_json: bool) -> None:
    """List cuts, the newest first.

    \b
    example: klinket admin cut list --limit 10
    """
    document = "query($first: Int) { cuts(first: $first) { edges { node { id scope } } } }"
    edges = api.extension.execute(document, first=LISTED)["cuts"]["edges"]
    words = {edge["node"]["id"]: edge["node"]["scope"] for edge in edges}
    # A cut that came in between the two answers has its ids until it is listed again.
    found = [{**one, "what": words.get(_id(one["id"]), one["scope"])} for one in newest_cuts(api)[:limit]]
    columns = {
        "ID": "id", "TIME": "created_at", "WHAT": "what", "REASON": "reason", "WHO": "who",
        "FLOWS ENDED": "flows", "CONNECTORS": "answered", "SLOWEST MS": "slowest",
    }  # fmt: skip
    show_rows(found if as_json else [_row(one) for one in found], columns, as_json=as_json, empty="nothing was cut yet")


@cut.command()
@click.argument("number", type=click.IntRange(1))
@with_api
def show(api: AdminApiClient, number: int, as_json: bool) -> None:
    """Show one cut: per connector the flows it ended, after how many milliseconds, and who has not answered.

    \b
    example: klinket admin cut show 7
    """
    found = find_cut(api, number)
    if as_json:
        show_object(found, as_json=True)
    else:
        show_cut(found)


@cut.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--keys", type=click.Path(path_type=Path, exists=True), help="The controller's jwks.json; default: ask for it.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for scripts.")
@click.pass_context
def verify(ctx: click.Context, file: Path, keys: Path | None, as_json: bool) -> None:
    """Prove that FILE, made by `cut show NUMBER --json`, is as the controller and each connector signed it.

    Needs no API token, and with --keys no controller. The exit code is 0 only when nothing was altered.

    \b
    example: klinket admin cut verify cut-7.json
    """
    from klinket.cli.admin.controller_keys import auditors_keys
    from klinket.wire.cut_document import verify_document

    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidInput("file", f"{file} is not JSON", hint="make it: klinket admin cut show NUMBER --json") from error
    proven = verify_document(document if isinstance(document, dict) else {}, auditors_keys(ctx, keys))
    told = {
        "ok": True, "network": proven.network, "cut": proven.cut, "signed": moment(proven.signed_at * 1000),
        "flows_ended": proven.flows, "answered": list(proven.answered), "pending": list(proven.pending),
    }  # fmt: skip
    show_object(told, as_json=as_json)


def show_cut(cut: dict[str, Any]) -> None:
    """Print a cut for people."""
    row = _row(cut)
    shown = {"cut": "id", "time": "created_at", "what": "what", "reason": "reason", "who": "who", "answered": "answered"}
    show_object({title: row[key] for title, key in shown.items()}, as_json=False)
    for receipt in cut["receipts"]:
        click.echo("")
        lines = {"connector": receipt["connector"], "state": receipt["state"]}
        if receipt["state"] == PENDING:
            lines["grants end at"] = moment(receipt["grants_end_at_ms"])
        else:
            stopped = moment(receipt["stopped_at_ms"])
            lines |= {"stopped at": stopped, "took ms": receipt["took_ms"], "flows ended": len(receipt["flows"] or [])}
        show_object(lines, as_json=False)
        if receipt["flows"]:
            columns = {
                "FLOW": "flow", "HOST": "host", "PORT": "port", "PROTOCOL": "protocol",
                "SESSION": "session", "STOPPED AFTER MS": "stopped_after_ms",
            }  # fmt: skip
            show_rows([{**flow, "host": flow.get("host") or NO_DESTINATION} for flow in receipt["flows"]], columns, as_json=False)
