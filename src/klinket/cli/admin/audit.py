"""`klinket admin audit`: who changed what, and proof that nobody changed the record of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.export_file import fetch, read_lines
from klinket.cli.admin.output import show_object, show_rows
from klinket.cli.admin.params import FILE
from klinket.cli.admin.time_range import with_time_range
from klinket.domain.errors import NotFound
from klinket.wire.paths import AUDIT_EXPORT_PATH

PAGE_NODES = 100
_LIST = (
    "query($filter: AuditEventFilterInput, $after: String, $first: Int)"
    " { auditEvents(filter: $filter, first: $first, after: $after)"
    " { pageInfo { hasNextPage endCursor } edges { node { event } } } }"
)


@click.group()
def audit() -> None:
    """The audit: every change, who made it, from where.

    \b
    example: klinket admin audit list --from 24h
    """


@audit.command("list")
@with_time_range
@click.option("--actor", type=click.Choice(["user", "api", "system"]), help="Who acted.")
@click.option("--action", "actions", multiple=True, metavar="WORD", help="create, edit, delete, login, ...; may be repeated.")
@click.option("--target-type", metavar="TYPE", help="For example serviceAccountKey.")
@click.option("--target", "target_id", metavar="ID", help="The changed object.")
@click.option("--text", metavar="TEXT", help="Somewhere in the event, in any case.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Events shown at the most.")
@with_api
def list_events(
    api: AdminApiClient,
    begin: str | None,
    end: str | None,
    actor: str | None,
    actions: tuple[str, ...],
    target_type: str | None,
    target_id: str | None,
    text: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List events, the newest first.

    \b
    example: klinket admin audit list --from 24h --target-type serviceAccountKey
    """
    filter = {
        "from": begin, "to": end, "actorType": actor and actor.upper(), "actions": list(actions) or None,
        "targetType": target_type, "targetId": target_id, "text": text,
    }  # fmt: skip
    events = [node["event"] for node in pages(api, _LIST, "auditEvents", filter, limit)]
    columns = {"NUMBER": "number", "TIME": "time", "WHO": "who", "FROM": "source", "ACTION": "action", "WHAT": "what"}
    show_rows(events if as_json else [_row(event) for event in events], columns, as_json=as_json, empty="no such events")


def pages(api: AdminApiClient, document: str, field: str, filter: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """Return the nodes of up to `limit` events, page by page."""
    events: list[dict[str, Any]] = []
    after = None
    while len(events) < limit:
        page = api.extension.execute(document, filter=filter, after=after, first=min(PAGE_NODES, limit - len(events)))[field]
        events += [edge["node"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    return events


def _row(event: dict[str, Any]) -> dict[str, Any]:
    actor = event["actor"]
    name = (actor.get("info") or {}).get("name") or actor.get("id")
    what = ", ".join(f"{target['type']} {target['name']}" for target in event["targets"])
    what = what or ", ".join(f"{name} {value}" for name, value in event["detail"].items())  # of events that are of no object
    return {**event, "who": f"{actor['type']} {name}" if name else actor["type"], "what": what}


@audit.command()
@click.argument("number", type=click.IntRange(1))
@with_api
def show(api: AdminApiClient, number: int, as_json: bool) -> None:
    """Show one event by its number.

    \b
    example: klinket admin audit show 17
    """
    from base64 import b64encode

    id = b64encode(f"AuditEvent:{number}".encode()).decode()
    found = api.extension.execute("query($id: ID!) { auditEvent(id: $id) { event } }", id=id)["auditEvent"]
    if found is None:
        raise NotFound("Audit event", number)
    event = found["event"]
    show_object(event if as_json else {**_row(event), "targets": json.dumps(event["targets"])}, as_json=as_json)


@audit.command()
@with_api
def retention(api: AdminApiClient, as_json: bool) -> None:
    """Show for how long the audit is kept, and what was removed after that time.

    It is set on the controller's machine (`klinket controller --audit-days`): no API token can shorten it.

    \b
    example: klinket admin audit retention
    """
    fields = "days events pruned digest until prunedAt heldBy"
    found = api.extension.execute(f"{{ auditRetention {{ {fields} }} }}")["auditRetention"]
    held_by = found["heldBy"]
    show_object(found if as_json else {**found, "heldBy": ", ".join(held_by) or None}, as_json=as_json)


@audit.command()
@with_time_range
@click.option(
    "--format", type=click.Choice(["json", "csv"]), default="json", show_default=True, help="Only json can be verified."
)
@click.option("--out", type=FILE, metavar="FILE", help="Compressed when it ends with .gz; default: stdout.")
@with_api
def export(api: AdminApiClient, begin: str | None, end: str | None, format: str, out: str | None, as_json: bool) -> None:
    """Export the events of a time range, the oldest first, with the controller's signatures.

    \b
    example: klinket admin audit export --from 7d --out audit.jsonl.gz
    """
    fetch(api, AUDIT_EXPORT_PATH, format="json" if as_json else format, begin=begin, end=end, out=out)


@audit.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--keys", type=click.Path(path_type=Path, exists=True), help="The controller's jwks.json; default: ask for it.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for scripts.")
@click.pass_context
def verify(ctx: click.Context, file: Path, keys: Path | None, as_json: bool) -> None:
    """Prove that an export (JSON) is complete and unaltered, or name the first event that is wrong.

    Needs no API token, and with --keys no controller. The exit code is 0 only when the file is as it was exported.

    \b
    example: klinket admin audit verify audit.jsonl.gz --keys jwks.json
    """
    from klinket.cli.admin.controller_keys import auditors_keys
    from klinket.domain.audit_verification import AuditNotIntact
    from klinket.domain.audit_verification import verify as verify_records
    from klinket.wire.audit_export import read_records
    from klinket.wire.audit_signature import verify_anchor, verify_block, verify_range

    known = auditors_keys(ctx, keys)
    try:
        whole = verify_records(
            read_records(read_lines(file)),
            lambda token: verify_block(token, known),
            lambda token: verify_range(token, known),
            lambda token: verify_anchor(token, known),
        )
    except AuditNotIntact as error:
        if as_json:
            show_object({"ok": False, "kind": error.kind.value, "number": error.number, "error": error.message}, as_json=True)
        raise
    count = whole.last - whole.first + 1
    told = {
        "ok": True, "network": whole.network, "events": count, "first": whole.first if count else None,
        "last": whole.last if count else None, "digest": whole.digest, "from": _iso(whole.begin_ms), "to": _iso(whole.end_ms),
        "pruned": whole.first - 1 if whole.begin_ms is None and whole.first > 1 else None, "exported": _iso(whole.time * 1000),
    }  # fmt: skip
    show_object(told, as_json=as_json)


def _iso(milliseconds: int | None) -> str | None:
    from klinket.domain.moments import iso

    return None if milliseconds is None else iso(milliseconds)
