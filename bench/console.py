"""The console's figures: how long each page takes at the server, and its size, with a large inventory and a long history."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import volume
from bench.command import options, say
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

AUDIT_EVENTS = 5_000
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


def _sign_in(tx: Transaction) -> str:
    ada = tx.users.change(tx.users.find(email="ada@example.com")[0].id, state=users.ACTIVE)
    return console_sessions.begin(tx, ada, Stage.FULL, address=SOURCE, user_agent="bench", entropy=os.urandom)[1]


def _audited(tx: Transaction) -> None:
    row = tx.resources.find(address="r1.internal")[0]
    for number in range(500):
        row = resources.update(tx, SYSTEM, row, {"name": f"resource {1 if number % 2 else '1b'}"})


def paths(ids: dict[str, int], middle: int) -> list[str]:
    """Return a path for each page, and those of QUERIES that there are pages for."""
    found = console_pages.pages(ids)
    return found + [path.format(middle=middle) for path in QUERIES if path.partition("?")[0] in found]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one page. `cpu`: median of the whole process in milliseconds, what a busy machine does not falsify."""

    status: int
    median: float
    p95: float
    cpu: float
    bytes: int

    @property
    def is_wanted(self) -> bool:
        """Return whether the page keeps to what is wanted."""
        return self.status == 200 and self.p95 < MAX_MS and self.bytes < MAX_BYTES


async def _filled(state: Path, say: Callable[[str], None]) -> Running:
    """Return a controller over a filled database; one that is there already is taken as it is."""
    marker = state / "filled"
    running = Running(state)
    await running.store.write(lambda tx: [tx.api_tokens.remove(id=row.id) for row in tx.api_tokens.find()])
    await running.open()
    if not marker.exists():
        say(f"filling {RESOURCES:,} resources, {SERVICES:,} services, {EVENTS:,} flow events")
        begun = time.perf_counter()
        await running.store.write(lambda tx: console_example.fill(tx))
        assert isinstance(running.config.database, Path)
        await asyncio.to_thread(volume.fill, running.config.database, int(running.clock() * 1000))
        for _ in range(AUDIT_EVENTS // 500):
            await running.store.write(_audited)
        await audit_signing.sign_waiting(running.store, running.trust, now=True)
        marker.touch()
        say(f"filled in {time.perf_counter() - begun:.0f} s")
    return running


async def measure(state: Path, words: list[str], say: Callable[[str], None]) -> dict[str, Figures]:
    """Return the figures of the pages that have one of the words in their path (without words: of all)."""
    running = await _filled(state, say)
    try:
        cookie = await running.store.write(_sign_in)
        ids = await running.store.read(_ids)
        middle = int(running.clock() * 1000) - DAYS * 12 * HOUR_MS
        headers = {"cookie": f"{COOKIE}={cookie}", "sec-fetch-site": "same-origin"}
        results = {}
        async with running.http() as client:
            for path in paths(ids, middle):
                if words and not any(word in path for word in words):
                    continue
                times, cpus = [], []
                for number in range(REQUESTS + WARM):
                    await asyncio.sleep(0.04)  # the gate bounds how many a second one user may ask
                    begun, used = time.perf_counter(), time.process_time()
                    answer = await client.get("/console" + path, headers=headers, follow_redirects=False)
                    if number >= WARM:
                        times.append((time.perf_counter() - begun) * 1000)
                        cpus.append((time.process_time() - used) * 1000)
                times.sort()
                figures = (statistics.median(times), percentile(times, 0.95), statistics.median(cpus))
                results[path] = Figures(answer.status_code, *figures, len(answer.content))
                say(f"{path} {results[path].p95:.0f} ms, {results[path].cpu:.0f} ms of CPU")
        return results
    finally:
        running.store.close()


def _ids(tx: Transaction) -> dict[str, int]:
    busy = tx.service_accounts.find(name="service 1")[0].id
    return console_pages.ids_of(tx) | {
        "services": busy,
        "keys": tx.service_keys.find(service_account_id=busy)[0].id,
        "resources": tx.resources.find(name="resource 77")[0].id,
    }


def main() -> None:
    """Print a table, and JSON with --json."""
    parser = options("console", __doc__ or "", "services")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only pages with one of these in their path")
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="keep the filled database here, and use it again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as scratch:
        state = given.state or Path(scratch)
        results = asyncio.run(measure(state, given.words, say))
    if given.json:
        print(json.dumps({path: asdict(figures) for path, figures in results.items()}, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"wanted: p95 < {MAX_MS:.0f} ms, < {MAX_BYTES:,} bytes")
    print(f"  {'page':<64} {'status':>6} {'median':>8} {'p95':>8} {'CPU':>8} {'bytes':>8}")
    for path, one in results.items():
        mark = "" if one.is_wanted else "  <-"
        print(f"  {path:<64} {one.status:>6} {one.median:>8.1f} {one.p95:>8.1f} {one.cpu:>8.1f} {one.bytes:>8}{mark}")
