"""Exports as CSV (RFC 4180): network events with the columns of facts §6, and the audit for people."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from klinket.controller.app.flow_events import Connection
from klinket.domain.moments import iso
from klinket.wire.traffic_log import CONNECTION_FAILED, NORMAL

#: The compatible columns, then klinket's own.
FLOW_COLUMNS = (
    "start_time", "end_time", "user", "user_id", "device_id", "client_ip", "connector", "connector_id", "resource_ip",
    "resource_port", "resource_domain", "resource_id", "protocol", "status", "bytes_transferred", "bytes_received",
    "remote_network", "remote_network_id", "applied_rule", "relays", "relay_ips", "relay_ports",
    "service_account", "service_account_id", "service_key", "service_key_id", "failure",
)  # fmt: skip
AUDIT_COLUMNS = (
    "number", "time", "actor_type", "actor_id", "actor_name", "source", "action", "target_types", "target_ids", "target_names",
    "request_id", "correlation_id", "user_agent", "targets", "detail", "digest",
)  # fmt: skip
#: A spreadsheet takes a cell that begins with one of these for a formula, also after spaces. Where numbers have decimal commas
#: it parts cells at semicolons, whatever stands in quotes before them, and some part them at tabs and line breaks.
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


def lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return rows as CSV; None is an empty cell, and nothing begins as a formula does: an apostrophe goes before it."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue().encode("utf-8", "replace")


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _FORMULA.sub(r"\1'", value)
    return "" if value is None else value


def connection_row(connection: Connection) -> list[Any]:
    """Return a finished connection in the order of FLOW_COLUMNS. Where it failed, end, bytes and resource address are empty."""
    last = connection.last
    event = last.event
    link, account, resource, relays = event["connection"], event["service_account"], event["resource"], event["relays"]
    begun = connection.established
    normal = last.kind == "closed" or begun is not None
    start = begun.time_ms if begun is not None else last.time_ms - link.get("duration", 0)
    address = (begun.event["connection"]["resource_ip"] if begun is not None else None) or link["resource_ip"]
    return [
        iso(start),
        iso(last.time_ms) if normal else None,
        None,
        None,
        event["device"]["id"],
        link["client_ip"],
        event["connector"]["name"],
        event["connector"]["id"],
        address if normal else None,
        link["resource_port"],
        resource["address"] if resource["address"] != address else None,
        resource["id"],
        link["protocol"],
        NORMAL if normal else event.get("status", CONNECTION_FAILED),
        link.get("tx"),
        link.get("rx"),
        event["remote_network"]["name"],
        event["remote_network"]["id"],
        resource["applied_rule"],
        ";".join(str(relay["name"] or "") for relay in relays),
        ";".join(str(relay["ip"]) for relay in relays),
        ";".join(str(relay["port"] or "") for relay in relays),
        account["name"],
        account["id"],
        account["key"],
        account["key_id"],
        last.failure,
    ]


def audit_row(event: dict[str, Any]) -> list[Any]:
    """Return an audit event as exported in the order of AUDIT_COLUMNS."""
    actor, targets, request = event["actor"], event["targets"], event["request"] or {}
    return [
        event["number"],
        event["time"],
        actor.get("type"),
        actor.get("id"),
        (actor.get("info") or {}).get("name"),
        event["source"],
        event["action"],
        *(";".join(str(target.get(name)) for target in targets) for name in ("type", "id", "name")),
        request.get("id"),
        request.get("correlationId"),
        request.get("userAgent"),
        json.dumps(targets, ensure_ascii=False),
        json.dumps(event["detail"], ensure_ascii=False),
        event["digest"],
    ]
