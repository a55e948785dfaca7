"""A large inventory and a long history, inserted directly: what the console's figures are taken with."""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from klinket.wire import signing

RESOURCES, SERVICES, EVENTS = 10_000, 1_000, 1_000_000
KEYS_EACH, GRANTS_EACH, LIVE_FLOWS, CUTS = 3, 20, 5_000, 500
HOUR_MS, DAYS = 3_600_000, 30
#: Services that make half of all flows.
BUSY_SERVICES = 10
FAILURES = ("refused", "timed-out", "name-not-found", "unreachable")
ACTOR = json.dumps({"type": "User", "id": "1", "info": {"name": "ada@example.com"}})


def fill(path: Path, now_ms: int, seed: int = 7) -> None:
    """Fill a database that holds the console's example already: three networks with connectors, and one row of everything."""
    rng = random.Random(seed)
    with sqlite3.connect(path) as db:
        db.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-200000;")
        base = {name: _highest(db, name) for name in ("resources", "service_accounts", "service_keys")}
        _inventory(db, base, now_ms)
        _insert(db, "flow_events", _events(rng, base, now_ms))
        _live(db)
        _totals(db)
        _cuts(db, rng, now_ms)


def _highest(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchone()[0])


def _insert(db: sqlite3.Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = iter(rows)
    first = next(rows)
    names = tuple(first)
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    db.execute(statement, tuple(first.values()))
    db.executemany(statement, (tuple(row.values()) for row in rows))


def _like_the_first(db: sqlite3.Connection, table: str, now_ms: int) -> dict[str, Any]:
    """Return the values of a table's first row but its id: what need not differ."""
    found = db.execute(f"SELECT * FROM {table} ORDER BY id LIMIT 1")
    names = [column[0] for column in found.description]
    row = dict(zip(names, found.fetchone(), strict=True))
    return {name: now_ms if name in ("created_at_ms", "updated_at_ms") else value for name, value in row.items() if name != "id"}


def _inventory(db: sqlite3.Connection, base: dict[str, int], now_ms: int) -> None:
    resource = _like_the_first(db, "resources", now_ms)
    _insert(
        db,
        "resources",
        (
            resource
            | {"name": f"resource {n}", "address": f"r{n}.internal", "remote_network_id": 1 + n % 3}
            | {"alias": None if n % 10 else f"alias{n}.example"}
            for n in range(RESOURCES)
        ),
    )
    account = _like_the_first(db, "service_accounts", now_ms)
    _insert(
        db, "service_accounts", (account | {"name": f"service {n}", "uuid": str(uuid.UUID(int=n + 1))} for n in range(SERVICES))
    )
    public = signing.public_key_to_pem(signing.generate_private_key().public_key())
    key = _like_the_first(db, "service_keys", now_ms) | {"public_key": public, "revoked_at_ms": None}
    _insert(
        db,
        "service_keys",
        (
            key
            | {"name": f"key {n}", "kid": f"bench-{n:08d}", "service_account_id": base["service_accounts"] + 1 + n // KEYS_EACH}
            | {"expires_at_ms": now_ms + (1 + n % 364) * 24 * HOUR_MS}
            for n in range(SERVICES * KEYS_EACH)
        ),
    )
    granted = _like_the_first(db, "access", now_ms)
    pairs = ((service, (service * 7 + n * 13) % RESOURCES) for service in range(SERVICES) for n in range(GRANTS_EACH))
    _insert(
        db,
        "access",
        (
            granted
            | {"service_account_id": base["service_accounts"] + 1 + service, "resource_id": base["resources"] + 1 + resource}
            for service, resource in pairs
        ),
    )


def _events(rng: random.Random, base: dict[str, int], now_ms: int) -> Iterator[dict[str, Any]]:
    for number in range(EVENTS):
        flow = number // 2
        service = rng.randrange(BUSY_SERVICES) if flow % 2 else rng.randrange(SERVICES)
        resource = (service * 7 + rng.randrange(GRANTS_EACH) * 13) % RESOURCES
        kind, failure = ("established", None) if number % 2 == 0 else ("closed", None)
        if flow % 20 == 0:
            kind, failure = "denied", "not-granted"
        elif flow % 20 == 1:
            kind, failure = "failed", rng.choice(FAILURES)
        row = {
            "connector_id": 1 + flow % 3,
            "batch": 1_000_000 + number // 1000,
            "number": number % 1000,
            "time_ms": now_ms - DAYS * 24 * HOUR_MS + number * DAYS * 24 * HOUR_MS // EVENTS,
            "kind": kind,
            "flow": f"{flow:x}",
            "service_account_id": base["service_accounts"] + 1 + service,
            "service_key_id": base["service_keys"] + 1 + service * KEYS_EACH,
            "resource_id": None if kind == "denied" else base["resources"] + 1 + resource,
            "remote_network_id": 1,
            "failure": failure,
        }
        yield row | {"event": json.dumps(_exported(row, service, resource))}


def _exported(row: Mapping[str, Any], service: int, resource: int) -> dict[str, Any]:
    link = {
        "id": row["flow"], "client_ip": "192.0.2.9", "resource_ip": "10.0.0.9", "resource_port": 443, "protocol": "tcp",
        "tunnel_path": "relayed", "tunnel_proto": "tcp",
    }  # fmt: skip
    if row["kind"] == "closed":
        link |= {"rx": 120_000, "tx": 4_000, "duration": 900}
    target = row["resource_id"]
    return {
        "event_type": row["kind"],
        "timestamp": row["time_ms"],
        "connection": link,
        "connector": {"id": str(row["connector_id"]), "name": "brave-otter"},
        "device": {"id": "bench"},
        "resource": {"id": target and str(target), "address": f"r{resource}.internal", "applied_rule": None},
        "remote_network": {"id": "1", "name": "production"},
        "relays": [{"ip": "192.0.2.1", "name": "relay", "port": 443}],
        "service_account": {
            "id": str(row["service_account_id"]),
            "name": f"service {service}",
            "key": f"key {service * KEYS_EACH}",
            "key_id": str(row["service_key_id"]),
        },
        "status": "NORMAL",
    }


def _live(db: sqlite3.Connection) -> None:
    same = "service_account_id, service_key_id, resource_id, event"
    db.execute(
        f"INSERT INTO live_flows (connector_id, flow, established_at_ms, session, {same})"
        f" SELECT connector_id, flow, time_ms, 'bench', {same} FROM flow_events"
        " WHERE kind = 'established' AND batch >= 1000000 ORDER BY id DESC LIMIT ?",
        (LIVE_FLOWS,),
    )


def _totals(db: sqlite3.Connection) -> None:
    db.executescript("DELETE FROM flow_totals; DELETE FROM flow_hours;")
    keys, sums = "hour_ms, service_account_id, resource_id, kind, failure", "flows, bytes_from_client, bytes_to_client"
    sizes = ", ".join(f"sum(coalesce(json_extract(event, '$.connection.{name}'), 0))" for name in ("tx", "rx"))
    hour = f"time_ms - time_ms % {HOUR_MS}"
    db.execute(
        f"INSERT INTO flow_totals ({keys}, {sums}) SELECT {hour}, coalesce(service_account_id, 0), coalesce(resource_id, 0),"
        f" kind, coalesce(failure, ''), count(*), {sizes} FROM flow_events GROUP BY 1, 2, 3, 4, 5"
    )
    db.execute(
        f"INSERT INTO flow_hours (hour_ms, kind, failure, {sums}) SELECT hour_ms, kind, failure,"
        " sum(flows), sum(bytes_from_client), sum(bytes_to_client) FROM flow_totals GROUP BY 1, 2, 3"
    )


def _cuts(db: sqlite3.Connection, rng: random.Random, now_ms: int) -> None:
    first = _highest(db, "cuts") + 1
    flow = {
        "flow": "f", "session": "s", "service_account": str(uuid.UUID(int=5)), "key": "k", "resource": 1, "host": "r1.internal",
        "port": 443, "protocol": "tcp", "stopped_after_ms": 3.2,
    }  # fmt: skip
    cut = {"epoch": 1, "reason": "cut", "token": "signed", "actor": ACTOR}
    _insert(
        db,
        "cuts",
        (
            {"id": first + n, "created_at_ms": now_ms - (CUTS - n) * HOUR_MS, "revision": n, "scope": f"key bench-{n:08d}"} | cut
            for n in range(CUTS)
        ),
    )
    answered = {"state": "answered", "grants_end_at_ms": now_ms, "stopped_at_ms": now_ms, "flows": json.dumps([flow] * 5)}
    _insert(
        db,
        "cut_receipts",
        (
            {"cut_id": first + n, "connector_id": one, "connector_name": f"connector {one}", "took_ms": rng.uniform(1, 30)}
            | answered
            for n in range(CUTS)
            for one in (1, 2, 3)
        ),
    )
