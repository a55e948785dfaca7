"""The Admin API's figures: reads, single-key mutations, paging and memory of one real controller, small and with 100,000 keys."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import platform
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.command import options, say
from bench.main_job import cpu_seconds, percentile
from examples.deployment import KLINKET, READY_SECONDS, Part, clean_environment, free_port
from klinket.controller.app import api_tokens, connectors, defaults, remote_networks, resources, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.store.engine import open_store
from klinket.domain.audit import SYSTEM
from klinket.net import clock
from klinket.wire import signing
from klinket.wire.paths import GRAPHQL_PATH

NETWORK = "bench"
SMALL_ACCOUNTS, KEYS_EACH = 50, 3
KEYS, KEYS_OF_OTHERS, RESOURCES = 100_000, 200, 10_000
#: Rows one transaction of the seeding makes.
AT_ONCE = 2_000
CONNECTIONS = 4
READ_SECONDS = 8.0
WRITES_PER_SECOND, WRITE_SECONDS = 10, 30.0
PAGE = 100
#: What must be reached on two cores, one process: at least, or (where the figure is a time or a size) at most.
REQUIRED = {
    "reads, req/s": ">= 120",
    "reads with 100,000 keys, req/s": ">= 40",
    "mutation p99, ms": "< 50",
    "listing 10,000 resources, s": "< 10",
    "resident memory, MB": "< 250",
}
ACCOUNTS = """query ($n: Int!) { serviceAccounts(first: $n) { edges { node {
  id name keys { edges { node { id name status expiresAt } } } } } } }"""
RESOURCES_PAGE = """query ($after: String) { resources(first: 100, after: $after) {
  edges { node { id name address { type value } isActive remoteNetwork { id name } } } pageInfo { endCursor hasNextPage } } }"""
CREATE = """mutation ($a: ID!) { serviceAccountKeyCreate(serviceAccountId: $a, expirationTime: 365, name: "runner") {
  ok error token entity { id name } } }"""
RENAME = 'mutation ($k: ID!) { serviceAccountKeyUpdate(id: $k, name: "renamed") { ok error entity { id name } } }'
REVOKE = "mutation ($k: ID!) { serviceAccountKeyRevoke(id: $k) { ok error entity { id status } } }"


# ---- what is in the store


class Inventory:
    """Fills a controller's database through its store, before the controller runs."""

    def __init__(self, state: Path) -> None:
        self._path = state / "klinket.db"
        self._public_key = signing.public_key_to_pem(signing.generate_private_key().public_key())
        self._made = 0
        self.token = ""

    def small(self) -> None:
        """Make an API token, a network with a connector, and the accounts that are asked for."""

        def change(tx: Transaction) -> None:
            defaults.ensure(tx)
            self.token = api_tokens.create(tx, SYSTEM, name="bench", scopes=api_tokens.ALL_SCOPES, entropy=os.urandom)[1]
            office = remote_networks.create(tx, SYSTEM, name="office", location="OTHER", network_type="REGULAR", is_active=True)
            connectors.create(tx, SYSTEM, office, name="office-1", has_status_notifications=True)
            for number in range(SMALL_ACCOUNTS):
                self._account(tx, f"service {number}", KEYS_EACH)

        self._write([change])

    def large(self) -> None:
        """Make what is missing to KEYS keys, all of other accounts, and RESOURCES resources."""

        def accounts(tx: Transaction) -> None:
            for _ in range(AT_ONCE // KEYS_OF_OTHERS):
                if self._made < KEYS:
                    self._account(tx, f"other {self._made}", min(KEYS_OF_OTHERS, KEYS - self._made))

        def more_resources(first: int) -> Callable[[Transaction], None]:
            def change(tx: Transaction) -> None:
                for number in range(first, first + AT_ONCE):
                    resources.create(tx, SYSTEM, name=f"resource {number}", address=f"r{number}.internal", remote_network_id=1)

            return change

        self._write([accounts] * (KEYS // AT_ONCE + 1))
        self._write([more_resources(first) for first in range(0, RESOURCES, AT_ONCE)])

    def _account(self, tx: Transaction, name: str, keys: int) -> None:
        account = service_accounts.create(tx, SYSTEM, name=name, uuid=f"00000000-0000-4000-8000-{self._made:012d}")
        for number in range(keys):
            self._made += 1
            tx.service_keys.add(
                name=f"key {number}",
                service_account_id=account.id,
                kid=f"key-{self._made:024d}",
                public_key=self._public_key,
                expires_at_ms=tx.now_ms + 86_400_000 * (1 + self._made % 365),
                expiry_cut=False,
                origin="controller",
                created_by={"type": "System", "id": None, "info": None},
            )

    def _write(self, changes: list[Callable[[Transaction], None]]) -> None:
        async def run() -> None:
            for change in changes:
                await store.write(change)

        store = open_store(self._path, clock.wall)
        try:
            asyncio.run(run())
        finally:
            store.close()


# ---- the controller, and asking it


class Api:
    """One keep-alive connection."""

    def __init__(self, port: int, token: str, authority: Path) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=context)
        self._headers = {"X-API-KEY": token, "Content-Type": "application/json"}

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return the data of an answer; raises RuntimeError for any other."""
        body = json.dumps({"query": document, "variables": variables}).encode()
        self._connection.request("POST", GRAPHQL_PATH, body, self._headers)
        response = self._connection.getresponse()
        content = response.read()
        answer = json.loads(content)
        if response.status != 200 or "errors" in answer:
            raise RuntimeError(f"{response.status}: {content[:500]!r}")
        return dict(answer["data"])


@contextmanager
def controller(state: Path, token: str) -> Iterator[tuple[int, Callable[[], Api]]]:
    """Run `klinket controller`; yields its process id, and what opens a connection to it."""
    port = free_port()
    command = [
        *KLINKET, "controller", "--network", NETWORK, "--state", str(state),
        "--listen", f"127.0.0.1:{port}", "--public-url", f"https://127.0.0.1:{port}", *_without_rate_limits(),
    ]  # fmt: skip
    part = Part("controller", command, state / "controller.log", clean_environment())
    authority = state / "controller-ca.pem"
    authority.unlink(missing_ok=True)
    part.start()
    try:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                Api(port, token, authority).ask("{ serviceAccounts(first: 1) { totalCount } }")
                break
            except OSError:
                if not part.running() or time.monotonic() > deadline:
                    raise RuntimeError(f"the controller did not come up:\n{part.tail()}") from None
                time.sleep(0.05)
        yield part.pid, lambda: Api(port, token, authority)
    finally:
        part.stop()


def _without_rate_limits() -> list[str]:
    """Return the options that lift the limits per token, where there are such limits."""
    known = subprocess.run([*KLINKET, "controller", "--help"], capture_output=True, text=True, check=True).stdout
    options = ("--api-reads-per-minute", "--api-writes-per-minute")
    return [word for option in options if option in known for word in (option, "0")]


# ---- measurements


def reads(pid: int, connect: Callable[[], Api]) -> tuple[float, float]:
    """Return requests per second over CONNECTIONS connections, and CPU milliseconds of the controller per request."""
    counts = [0] * CONNECTIONS
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            api = connect()
            while time.perf_counter() < end:
                found = api.ask(ACCOUNTS, n=SMALL_ACCOUNTS)["serviceAccounts"]["edges"]
                assert sum(len(edge["node"]["keys"]["edges"]) for edge in found) == SMALL_ACCOUNTS * KEYS_EACH
                counts[index] += 1
        except BaseException as error:
            failures.append(error)

    warm = connect()
    for _ in range(20):
        warm.ask(ACCOUNTS, n=SMALL_ACCOUNTS)
    used, begun = cpu_seconds(pid), time.perf_counter()
    end = begun + READ_SECONDS
    threads = [threading.Thread(target=run, args=(index,)) for index in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts) / (time.perf_counter() - begun), (cpu_seconds(pid) - used) * 1e3 / sum(counts)


def mutations(connect: Callable[[], Api]) -> list[float]:
    """Return the sorted milliseconds of creating, renaming and revoking keys, one after another at WRITES_PER_SECOND."""
    api = connect()
    account = api.ask("{ serviceAccounts(first: 1) { edges { node { id } } } }")["serviceAccounts"]["edges"][0]["node"]["id"]
    times = []
    key = ""
    begun = time.perf_counter()
    for number in range(int(WRITE_SECONDS * WRITES_PER_SECOND)):
        time.sleep(max(0.0, begun + number / WRITES_PER_SECOND - time.perf_counter()))
        document, variables = ((CREATE, {"a": account}), (RENAME, {"k": key}), (REVOKE, {"k": key}))[number % 3]
        asked = time.perf_counter()
        (payload,) = api.ask(document, **variables).values()
        times.append((time.perf_counter() - asked) * 1e3)
        assert payload["ok"], payload
        key = payload["entity"]["id"]
    return sorted(times)


def paging(connect: Callable[[], Api]) -> float:
    """Return the seconds to list all resources, PAGE at a time."""
    api, after, seen = connect(), None, 0
    begun = time.perf_counter()
    while True:
        page = api.ask(RESOURCES_PAGE, after=after)["resources"]
        seen += len(page["edges"])
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == RESOURCES, seen
    return time.perf_counter() - begun


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024


def measure(say: Callable[[str], None]) -> dict[str, float]:
    """Run everything and return the figures."""
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as directory:
        state = Path(directory)
        inventory = Inventory(state)
        inventory.small()
        say(f"{SMALL_ACCOUNTS} service accounts with {KEYS_EACH} keys each")
        with controller(state, inventory.token) as (pid, connect):
            results["reads, req/s"], results["reads, CPU ms each"] = reads(pid, connect)
        say(f"seeding up to {KEYS:,} keys and {RESOURCES:,} resources")
        inventory.large()
        with controller(state, inventory.token) as (pid, connect):
            say("the same with them")
            results["reads with 100,000 keys, req/s"], results["reads with 100,000 keys, CPU ms each"] = reads(pid, connect)
            times = mutations(connect)
            results["mutation p50, ms"], results["mutation p99, ms"] = percentile(times, 0.5), percentile(times, 0.99)
            results["listing 10,000 resources, s"] = paging(connect)
            results["resident memory, MB"] = resident(pid)
    return {name: round(value, 2) for name, value in results.items()}


def main() -> None:
    """Print a table, and JSON with --json."""
    given = options("api", __doc__ or "", "--json").parse_args()
    results = measure(say)
    if given.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    for name, value in results.items():
        print(f"  {name:<40} {value:>10}  {REQUIRED.get(name, '')}")
