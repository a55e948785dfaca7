"""The console's figures: how long each page takes at the server, and its size, with a large inventory and a million flow events."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import re
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.main_job import percentile
from klinket.controller import audit_signing
from klinket.controller.app import console_sessions, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from klinket.controller.console.route import ConsoleRoute
from klinket.controller.console.routes import PAGES
from klinket.domain.audit import SYSTEM
from klinket.wire import signing
from tests.unit.controller.running import SOURCE, Running
from tools import console_example

RESOURCES, SERVICES, EVENTS = 10_000, 1_000, 1_000_000
LIVE_FLOWS, CUTS, AUDIT_EVENTS = 5_000, 500, 20_000
REQUESTS, WARM = 25, 3
#: What each page must keep to: milliseconds (p95), and bytes.
MAX_MS, MAX_BYTES = 150.0, 100_000
HOUR_MS, DAYS = 3_600_000, 30
#: Pages that stream, or end only with their reader.
NOT_PAGES = {"/events", "/activity/flows/export", "/activity/audit/export"}
#: Pages asked in other ways as well: path with its query.
QUERIES = (
    "/activity/flows?service=500",
    "/activity/flows?service=500&result=denied",
    "/activity/flows?resource=77&connector=1",
    "/activity/flows?result=denied&time=7d",
    "/activity/flows?reason=timed-out&service=1",
    "/activity/flows?result=live",
    "/activity/flows?before={middle}.1",
    "/activity/flows?after={middle}.1",
    "/activity/flows?time=30d&connector=3&reason=no-connector",
    "/activity/trends?time=30d",
    "/activity/audit?object=resource+1&type=resource",
    "/activity/audit?actor=nobody",
    "/search?q=service",
    "/search?q=r9999.internal",
    "/search?q=zebra",
    "/network/resources?page=200",
    "/team/services?page=20",
)


def fill(path: Path, now_ms: int, seed: int = 7) -> None:
    """Insert everything directly; the example's objects are there already, so that no table lacks a row."""
    rng = random.Random(seed)  # noqa: S311 - figures
    key = signing.public_key_to_pem(signing.generate_private_key().public_key())
    with sqlite3.connect(path) as db:
        db.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-200000;")
        base = {
            name: db.execute(f"SELECT coalesce(max(id), 0) FROM {name}").fetchone()[0]
            for name in ("resources", "service_accounts", "service_keys")
        }  # noqa: S608, E501
        example = "SELECT protocols, is_visible, is_browser_shortcut_enabled, routing_mode, tags, approval_mode, access_mode FROM resources LIMIT 1"
        rest = db.execute(example).fetchone()
        db.executemany(
            "INSERT INTO resources (created_at_ms, updated_at_ms, name, address, alias, remote_network_id, is_active, protocols, is_visible,"
            " is_browser_shortcut_enabled, routing_mode, tags, approval_mode, access_mode) VALUES (?,?,?,?,?,?,1,?,?,?,?,?,?,?)",
            (
                (
                    now_ms,
                    now_ms,
                    f"resource {n}",
                    f"r{n}.internal",
                    f"alias{n}.example" if n % 10 == 0 else None,
                    1 + n % 3,
                    *rest,
                )
                for n in range(RESOURCES)
            ),
        )
        db.executemany(
            "INSERT INTO service_accounts (created_at_ms, updated_at_ms, name, uuid) VALUES (?,?,?,?)",
            ((now_ms, now_ms, f"service {n}", str(uuid.UUID(int=n + 1))) for n in range(SERVICES)),
        )
        db.executemany(
            "INSERT INTO service_keys (created_at_ms, updated_at_ms, name, service_account_id, kid, public_key, expires_at_ms, expiry_cut, origin,"
            " created_by, last_used_ms, last_used_by) VALUES (?,?,?,?,?,?,?,0,'GENERATED',?,?,?)",
            (
                (
                    now_ms, now_ms, f"key {n}", base["service_accounts"] + 1 + n // 3, f"bench-{n:08d}", key,
                    now_ms + (1 + n % 364) * 24 * HOUR_MS, json.dumps({"type": "System", "id": None, "info": None}), now_ms - n * 1000,
                    json.dumps({"hostname": "runner", "address": "192.0.2.9", "version": "0.1.0"}),
                )
                for n in range(SERVICES * 3)
            ),
        )  # fmt: skip
        db.executemany(
            "INSERT INTO access (created_at_ms, updated_at_ms, resource_id, service_account_id) VALUES (?,?,?,?)",
            (
                (now_ms, now_ms, base["resources"] + 1 + (n * 7 + m * 13) % RESOURCES, base["service_accounts"] + 1 + n)
                for n in range(SERVICES)
                for m in range(20)
            ),
        )
        events = _events(rng, base, now_ms)
        db.executemany(
            "INSERT INTO flow_events (connector_id, batch, number, time_ms, kind, flow, service_account_id, service_key_id, resource_id,"
            " remote_network_id, failure, event) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            events,
        )
        db.execute(
            "INSERT INTO live_flows (connector_id, flow, established_at_ms, session, service_account_id, service_key_id, resource_id, event)"
            " SELECT connector_id, 'live' || flow || id, time_ms, 'bench', service_account_id, service_key_id, resource_id, event FROM flow_events"
            " WHERE kind = 'established' ORDER BY id DESC LIMIT ?",
            (LIVE_FLOWS,),
        )
        db.executescript("DELETE FROM flow_totals; DELETE FROM flow_hours;")
        size = (
            "sum(coalesce(json_extract(event, '$.connection.tx'), 0)), sum(coalesce(json_extract(event, '$.connection.rx'), 0))"
        )
        hour = f"time_ms - time_ms % {HOUR_MS}"
        db.execute(
            "INSERT INTO flow_totals (hour_ms, service_account_id, resource_id, kind, failure, flows, bytes_from_client, bytes_to_client)"  # noqa: S608
            f" SELECT {hour}, coalesce(service_account_id, 0), coalesce(resource_id, 0), kind, coalesce(failure, ''), count(*), {size}"
            " FROM flow_events GROUP BY 1, 2, 3, 4, 5"
        )
        db.execute(
            "INSERT INTO flow_hours (hour_ms, kind, failure, flows, bytes_from_client, bytes_to_client)"
            " SELECT hour_ms, kind, failure, sum(flows), sum(bytes_from_client), sum(bytes_to_client) FROM flow_totals GROUP BY 1, 2, 3"
        )
        _cuts(db, rng, base, now_ms)


def _events(rng: random.Random, base: dict[str, int], now_ms: int) -> Iterator[tuple[Any, ...]]:
    failures = ("refused", "timed-out", "name-not-found", "unreachable")
    for number in range(EVENTS):
        flow = number // 2
        # Half of it is of ten services: some have a long history, most have not.
        service = rng.randrange(10) if flow % 2 else rng.randrange(SERVICES)
        resource = (service * 7 + rng.randrange(20) * 13) % RESOURCES
        word = flow % 20
        kind, failure = ("established", None) if number % 2 == 0 else ("closed", None)
        if word == 0:
            kind, failure = "denied", "not-granted"
        elif word == 1:
            kind, failure = "failed", rng.choice(failures)
        time_ms = now_ms - DAYS * 24 * HOUR_MS + number * DAYS * 24 * HOUR_MS // EVENTS
        account, key = base["service_accounts"] + 1 + service, base["service_keys"] + 1 + service * 3
        connector, target = 1 + flow % 3, None if kind == "denied" else base["resources"] + 1 + resource
        link = {
            "id": f"{flow:x}", "client_ip": "192.0.2.9", "resource_ip": "10.0.0.9", "resource_port": 443, "protocol": "tcp",
            "tunnel_path": "relayed", "tunnel_proto": "tcp",
        }  # fmt: skip
        if kind == "closed":
            link |= {"rx": 120_000, "tx": 4_000, "duration": 900}
        event = {
            "event_type": kind, "timestamp": time_ms, "connection": link, "connector": {"id": str(connector), "name": "brave-otter"},
            "device": {"id": "bench"}, "resource": {"id": target and str(target), "address": f"r{resource}.internal", "applied_rule": None},
            "remote_network": {"id": "1", "name": "production"}, "relays": [{"ip": "192.0.2.1", "name": "relay", "port": 443}],
            "service_account": {"id": str(account), "name": f"service {service}", "key": f"key {service * 3}", "key_id": str(key)},
            "status": "NORMAL",
        }  # fmt: skip
        yield (
            connector, 1_000_000 + number // 1000, number % 1000, time_ms, kind, f"{flow:x}", account, key, target, 1, failure, json.dumps(event),
        )  # fmt: skip


def _cuts(db: sqlite3.Connection, rng: random.Random, base: dict[str, int], now_ms: int) -> None:
    actor = json.dumps({"type": "User", "id": "1", "info": {"name": "ada@example.com"}})
    first = db.execute("SELECT coalesce(max(id), 0) FROM cuts").fetchone()[0] + 1
    flow = {
        "flow": "f", "session": "s", "service_account": str(uuid.UUID(int=5)), "key": "k", "resource": 1, "host": "r1.internal",
        "port": 443, "protocol": "tcp", "stopped_after_ms": 3.2,
    }  # fmt: skip
    db.executemany(
        "INSERT INTO cuts (id, created_at_ms, epoch, revision, scope, reason, token, actor) VALUES (?,?,1,?,?,'cut','t',?)",
        ((first + n, now_ms - (CUTS - n) * HOUR_MS, n, f"key bench-{n:08d}", actor) for n in range(CUTS)),
    )
    db.executemany(
        "INSERT INTO cut_receipts (cut_id, connector_id, connector_name, state, grants_end_at_ms, stopped_at_ms, took_ms, flows, token)"
        " VALUES (?,?,?,'answered',?,?,?,?,'t')",
        (
            (first + n, connector, f"connector {connector}", now_ms, now_ms, rng.uniform(1, 30), json.dumps([flow] * 5))
            for n in range(CUTS)
            for connector in (1, 2, 3)
        ),
    )


# ---- measuring


def _prepare(tx: Transaction) -> str:
    console_example.fill(tx)
    ada = tx.users.change(tx.users.find(email="ada@example.com")[0].id, state=users.ACTIVE)
    return console_sessions.begin(tx, ada, Stage.FULL, address=SOURCE, user_agent="bench", entropy=os.urandom)[1]


def _audited(tx: Transaction) -> None:
    from klinket.controller.app import resources

    row = tx.resources.find(name="resource 1")[0]
    for number in range(500):
        row = resources.update(tx, SYSTEM, row, {"name": f"resource {1 if number % 2 else '1b'}"})


def paths(ids: Callable[[ConsoleRoute], dict[str, Any]], middle: int) -> list[str]:
    """Return a path for each page, and those of QUERIES that there are pages for."""
    found = []
    for route in PAGES:
        if route.method == "GET" and route.path not in NOT_PAGES:
            filled = ids(route)
            found.append(re.sub(r"{(\w+)(:\w+)?}", lambda name: str(filled.get(name.group(1), "x")), route.path))  # noqa: B023
    there = {route.path for route in PAGES}
    return found + [path.format(middle=middle) for path in QUERIES if path.partition("?")[0] in there]


async def measure(say: Callable[[str], None]) -> dict[str, tuple[int, float, float, int]]:
    """Return status, median and p95 in ms, and size in bytes, by path."""
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as state:
        running = Running(Path(state))
        await running.open()
        cookie = await running.store.write(_prepare)
        say(f"filling {RESOURCES:,} resources, {SERVICES:,} services, {EVENTS:,} flow events")
        begun = time.perf_counter()
        await asyncio.to_thread(fill, running.config.database, int(running.clock() * 1000))
        for _ in range(AUDIT_EVENTS // 500):
            await running.store.write(_audited)
        await audit_signing.sign_waiting(running.store, running.trust, now=True)
        say(f"filled in {time.perf_counter() - begun:.0f} s")
        ids = await running.store.read(_ids)
        middle = int(running.clock() * 1000) - DAYS * 12 * HOUR_MS
        results = {}
        headers = {"cookie": f"{COOKIE}={cookie}", "sec-fetch-site": "same-origin"}
        wanted = [
            path
            for path in paths(lambda route: _for(route, ids), middle)
            if not sys.argv[2:] or any(a in path for a in sys.argv[2:])
        ]
        try:
            async with running.http() as client:
                for path in wanted:
                    times = []
                    for number in range(REQUESTS + WARM):
                        await asyncio.sleep(0.04)  # the gate bounds how many a second one user may ask
                        asked = time.perf_counter()
                        answer = await client.get("/console" + path, headers=headers, follow_redirects=False)
                        if number >= WARM:
                            times.append((time.perf_counter() - asked) * 1000)
                    times.sort()
                    results[path] = (answer.status_code, statistics.median(times), percentile(times, 0.95), len(answer.content))
                    say(f"{path} {results[path][2]:.0f} ms")
        finally:
            running.store.close()
        return results


def _ids(tx: Transaction) -> dict[str, Any]:
    return {
        "remote-networks": tx.remote_networks.find()[0].id,
        "connectors": tx.connectors.find()[0].id,
        "resources": tx.resources.find(name="resource 77")[0].id,
        "services": tx.service_accounts.find(name="service 1")[0].id,
        "keys": tx.service_keys.find(name="key 3")[0].id,
        "users": tx.users.find(email="ada@example.com")[0].id,
        "groups": tx.groups.find(name="Platform")[0].id,
        "flows": tx.flow_events.newest(1, kind="denied")[0].id,
        "cuts": tx.cuts.newest(1)[0].id,
        "audit": tx.audit.newest(1, order="number")[0].number,
        "policies": tx.security_policies.find()[0].id,
    }


def _for(route: ConsoleRoute, ids: dict[str, Any]) -> dict[str, Any]:
    """Return values for the numbers of a path: each is of what the word before it names."""
    filled: dict[str, Any] = {"kind": "service"}
    word = ""
    for part in route.path.strip("/").split("/"):
        named = re.fullmatch(r"{(\w+):int}", part)
        if named:
            filled[named.group(1)] = ids.get(word, 1)
        word = part
    return filled


def main() -> None:
    """Print a table, and JSON with --json."""
    as_json = "--json" in sys.argv
    if as_json:
        sys.argv.remove("--json")
    results = asyncio.run(measure(lambda text: print(text, file=sys.stderr, flush=True)))
    if as_json:
        print(json.dumps(results, indent=2))
        return
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; wanted: p95 < {MAX_MS:.0f} ms, < {MAX_BYTES:,} bytes"
    )
    print(f"  {'page':<64} {'status':>6} {'median':>8} {'p95':>8} {'bytes':>8}")
    for path, (status, median, p95, size) in results.items():
        mark = "" if p95 < MAX_MS and size < MAX_BYTES else "  <-"
        print(f"  {path:<64} {status:>6} {median:>8.1f} {p95:>8.1f} {size:>8}{mark}")
