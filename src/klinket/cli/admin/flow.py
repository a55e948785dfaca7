"""`klinket admin flow`: the connections of service accounts, as connectors saw them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from klinket.cli.admin import with_api
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.audit import pages
from klinket.cli.admin.export_file import fetch
from klinket.cli.admin.named import CONNECTOR, NETWORK, RESOURCE, SERVICE, Noun
from klinket.cli.admin.output import show_rows
from klinket.cli.admin.params import FILE
from klinket.cli.admin.service_key import KEY_OPTION, id_of_key
from klinket.cli.admin.time_range import with_time_range
from klinket.wire.paths import FLOWS_EXPORT_PATH

_LIST = (
    "query($filter: FlowEventFilterInput, $after: String, $first: Int)"
    " { flowEvents(filter: $filter, first: $first, after: $after)"
    " { pageInfo { hasNextPage endCursor } edges { node { event failure resourceName } } } }"
)


@click.group()
def flow() -> None:
    """Network events: connections that were made, refused, ended.

    \b
    example: klinket admin flow list --service ci --from 24h
    """


@flow.command("list")
@with_time_range
@SERVICE.option("--service", metavar="NAME", help="Of this service account (name or id).")
@RESOURCE.option("--resource", metavar="NAME", help="To this resource (name or id).")
@CONNECTOR.option("--connector", metavar="NAME", help="Through this connector (name or id).")
@NETWORK.option("--network", metavar="NAME", help="In this remote network (name or id).")
@KEY_OPTION
@click.option("--kind", "kinds", multiple=True, type=click.Choice(["established", "closed", "failed", "denied"]))
@click.option("--failure", metavar="WORD", help="For example not-granted, name-not-found.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Events shown at the most.")
@with_api
def list_events(
    api: AdminApiClient,
    begin: str | None,
    end: str | None,
    service: str | None,
    resource: str | None,
    connector: str | None,
    network: str | None,
    key: str | None,
    kinds: tuple[str, ...],
    failure: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List network events, the newest first.

    \b
    example: klinket admin flow list --service ci --kind denied --from 24h
    """
    filter = {
        "from": begin,
        "to": end,
        "serviceAccountId": _id(api, SERVICE, service),
        "resourceId": _id(api, RESOURCE, resource),
        "connectorId": _id(api, CONNECTOR, connector),
        "remoteNetworkId": _id(api, NETWORK, network),
        "serviceKeyId": None if key is None else id_of_key(api, service, key),
        "kinds": [kind.upper() for kind in kinds] or None,
        "failure": failure,
    }
    nodes = pages(api, _LIST, "flowEvents", filter, limit)
    columns = {
        "TIME": "time", "EVENT": "event_type", "SERVICE": "service", "KEY": "key", "TO": "to", "RESOURCE": "resource",
        "CONNECTOR": "connector", "SENT": "tx", "RECEIVED": "rx", "MS": "duration", "WHY": "failure",
    }  # fmt: skip
    rows = [node["event"] if as_json else _row(node["event"], node["failure"], node["resourceName"]) for node in nodes]
    show_rows(rows, columns, as_json=as_json, empty="no such events")


def _id(api: AdminApiClient, noun: Noun, wanted: str | None) -> str | None:
    return None if wanted is None else noun.find(api, wanted)["id"]


def _row(event: dict[str, Any], failure: str | None, name: str | None) -> dict[str, Any]:
    """Return a line of the table; `failure` also says why a connection ended early, which the exported event does not.

    `name`: of the resource, which has its address beside it where that says more than where the connection led.
    """
    address = event["resource"]["applied_rule"]
    shown = f"{name} ({address})" if name and address and address != event["resource"]["address"] else name or address
    link, account, resource = event["connection"], event["service_account"], event["resource"]
    return {
        "time": datetime.fromtimestamp(event["timestamp"] / 1000, UTC).isoformat(timespec="milliseconds"),
        "event_type": event["event_type"],
        "service": account["name"] or account["id"],
        "key": account["key"] or account["key_id"],
        "to": f"{link['protocol']} {resource['address']}:{link['resource_port']}",
        "resource": shown,
        "connector": event["connector"]["name"],
        "tx": link.get("tx"),
        "rx": link.get("rx"),
        "duration": link.get("duration"),
        "failure": failure,
    }


@flow.command()
@with_time_range
@click.option(
    "--format", type=click.Choice(["json", "csv"]), default="json", show_default=True, help="csv: a line per connection."
)
@click.option("--out", type=FILE, metavar="FILE", help="Compressed when it ends with .gz; default: stdout.")
@with_api
def export(api: AdminApiClient, begin: str | None, end: str | None, format: str, out: str | None, as_json: bool) -> None:
    """Export the network events of a time range, in the order in which they came in.

    \b
    example: klinket admin flow export --from 24h --format csv --out flows.csv.gz
    """
    fetch(api, FLOWS_EXPORT_PATH, format="json" if as_json else format, begin=begin, end=end, out=out)
