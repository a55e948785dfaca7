"""The console's figures: how long each page takes at the server, and its size, with a large inventory and a long history."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import volume
from bench.main_job import percentile
from bench.volume import DAYS, EVENTS, HOUR_MS, RESOURCES, SERVICES
from klinket.controller import audit_signing
from klinket.controller.app import console_sessions, resources, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.gate import COOKIE
from klinket.domain.audit import SYSTEM
from tests.unit.controller.running import SOURCE, Running
from tools import console_example, console_pages

AUDIT_EVENTS = 20_000
REQUESTS, WARM = 25, 3
#: What each page must keep to: milliseconds (p95), and bytes.
MAX_MS, MAX_BYTES = 150.0, 100_000
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


# ---- measuring


def _prepare(tx: Transaction) -> str:
    console_example.fill(tx)
    ada = tx.users.change(tx.users.find(email="ada@example.com")[0].id, state=users.ACTIVE)
    return console_sessions.begin(tx, ada, Stage.FULL, address=SOURCE, user_agent="bench", entropy=os.urandom)[1]


def _audited(tx: Transaction) -> None:
    row = tx.resources.find(name="resource 1")[0]
    for number in range(500):
        row = resources.update(tx, SYSTEM, row, {"name": f"resource {1 if number % 2 else '1b'}"})


def paths(ids: dict[str, int], middle: int) -> list[str]:
    """Return a path for each page, and those of QUERIES that there are pages for."""
    found = console_pages.pages(ids)
    return found + [path.format(middle=middle) for path in QUERIES if path.partition("?")[0] in found]


async def measure(say: Callable[[str], None]) -> dict[str, tuple[int, float, float, int]]:
    """Return status, median and p95 in ms, and size in bytes, by path."""
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as state:
        running = Running(Path(state))
        await running.open()
        cookie = await running.store.write(_prepare)
        say(f"filling {RESOURCES:,} resources, {SERVICES:,} services, {EVENTS:,} flow events")
        begun = time.perf_counter()
        await asyncio.to_thread(volume.fill, running.config.database, int(running.clock() * 1000))
        for _ in range(AUDIT_EVENTS // 500):
            await running.store.write(_audited)
        await audit_signing.sign_waiting(running.store, running.trust, now=True)
        say(f"filled in {time.perf_counter() - begun:.0f} s")
        ids = await running.store.read(_ids)
        middle = int(running.clock() * 1000) - DAYS * 12 * HOUR_MS
        results = {}
        headers = {"cookie": f"{COOKIE}={cookie}", "sec-fetch-site": "same-origin"}
        wanted = [path for path in paths(ids, middle) if not sys.argv[2:] or any(a in path for a in sys.argv[2:])]
        try:
            async with running.http() as client:
                for path in wanted:
                    times = []
                    for number in range(REQUESTS + WARM):
                        await asyncio.sleep(0.04)  # the gate bounds how many a second one user may ask
                        started = time.perf_counter()
                        answer = await client.get("/console" + path, headers=headers, follow_redirects=False)
                        if number >= WARM:
                            times.append((time.perf_counter() - started) * 1000)
                    times.sort()
                    results[path] = (answer.status_code, statistics.median(times), percentile(times, 0.95), len(answer.content))
                    say(f"{path} {results[path][2]:.0f} ms")
        finally:
            running.store.close()
        return results


def _ids(tx: Transaction) -> dict[str, int]:
    busy = tx.service_accounts.find(name="service 1")[0].id
    return console_pages.ids_of(tx) | {
        "services": busy,
        "keys": tx.service_keys.find(service_account_id=busy)[0].id,
        "resources": tx.resources.find(name="resource 77")[0].id,
    }


def main() -> None:
    """Print a table, and JSON with --json."""
    as_json = "--json" in sys.argv
    if as_json:
        sys.argv.remove("--json")
    results = asyncio.run(measure(lambda text: print(text, file=sys.stderr, flush=True)))
    if as_json:
        print(json.dumps(results, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"wanted: p95 < {MAX_MS:.0f} ms, < {MAX_BYTES:,} bytes")
    print(f"  {'page':<64} {'status':>6} {'median':>8} {'p95':>8} {'bytes':>8}")
    for path, (status, median, p95, size) in results.items():
        mark = "" if p95 < MAX_MS and size < MAX_BYTES else "  <-"
        print(f"  {path:<64} {status:>6} {median:>8.1f} {p95:>8.1f} {size:>8}{mark}")
