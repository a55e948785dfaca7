"""A cut, end to end: live flows end on both sides, the receipt says which and when, the audit who asked; others go on."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from examples.deployment import clean_environment, free_port
from tests.integration.conftest import Loopback, ProxyRefused, dial_socks, start_client
from tests.integration.evidence import Evidence
from tests.integration.watched import WatchedService, how_it_ends, wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Says what it read, and how its connection ended.
READER = """import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
connection.sendall(b"from-run")
print(connection.recv(8).decode(), flush=True)
try:
    print("end" if connection.recv(8) == b"" else "more")
except ConnectionResetError:
    print("reset")
    sys.exit(9)
"""
#: A connector that was never started: it answers no cut.
UNMANNED = "unmanned-1"


@dataclass
class Account:
    """A service account of one test with a client, and services that only it and `bystander` may reach.

    `ledger` is behind office-1, `archive` behind branch-1.
    """

    world: Loopback
    name: str
    key_id: str
    ledger: WatchedService
    archive: WatchedService
    socks: tuple[str, int]

    def dial(self, which: str, tag: bytes, socks: tuple[str, int] | None = None) -> socket.socket:
        service = {"ledger": self.ledger, "archive": self.archive}[which]
        connection = dial_socks(socks or self.socks, self.host(which), service.port)
        self.world.echo(connection, tag)
        return connection

    def host(self, which: str) -> str:
        return f"{which}.{self.name}.internal"

    def ends_at_the_service(self, which: str, tag: bytes) -> str:
        return {"ledger": self.ledger, "archive": self.archive}[which].wait_for_ending(tag).how


@pytest.fixture(scope="module")
def world(loopback: Loopback) -> Loopback:
    """A second network, in which one of two connectors was never started, and an account with a client beside the others."""
    admin = loopback.deployment.admin
    admin("network", "create", "branch")
    loopback.deployment.add_connector("branch", "branch-1")
    admin("connector", "create", "--network", "branch", UNMANNED)
    loopback.deployment.start_connector("branch-1")
    return loopback


@contextmanager
def account(world: Loopback, number: int) -> Iterator[Account]:
    """Make an account with its services; a client of it runs, and the module's own client may reach the services too."""
    name, admin = f"job-{number}", world.deployment.admin
    admin("service", "create", name)
    with WatchedService(f"127.77.1.{number}") as ledger, WatchedService(f"127.77.2.{number}") as archive:
        for which, network, service in (("ledger", "office", ledger), ("archive", "branch", archive)):
            title = f"{which} {number}"
            admin(
                "resource", "create", "--network", network, "--address", service.address,
                "--alias", f"{which}.{name}.internal", "--tcp", str(service.port), title,
            )  # fmt: skip
            for principal in (name, "ci"):
                admin("service", "grant", principal, title)
        key = world.deployment.add_key(name, "runner")
        key_id = json.loads(key.read_text())["key_id"]
        socks = ("127.0.0.1", free_port())
        client = start_client(world.deployment, key, socks, ("127.0.0.1", free_port()), f"client-{number}")
        try:
            made = Account(world, name, key_id, ledger, archive, socks)
            for which in ("ledger", "archive"):
                for proxy in (socks, world.socks):
                    wait_until(lambda: reaches(made, which, proxy), f"{which} is not reached", 20)  # noqa: B023
            yield made
        finally:
            client.stop()


def reaches(made: Account, which: str, socks: tuple[str, int]) -> bool:
    try:
        made.dial(which, b"is ready", socks).close()
    except OSError:
        return False
    return True


def newest_cut(world: Loopback, after: int) -> dict[str, Any]:
    """Return the cut made after the one with id `after`; it must be the only one."""

    def made() -> list[dict[str, Any]]:
        return [cut for cut in world.deployment.admin("cut", "list") if cut["id"] > after]

    wait_until(lambda: bool(made()), "no cut was made")
    (cut,) = made()
    return dict(world.deployment.admin("cut", "show", str(cut["id"])))


def last_cut_id(world: Loopback) -> int:
    return max((int(cut["id"]) for cut in world.deployment.admin("cut", "list")), default=0)


def answered(world: Loopback, cut: int, *connectors: str) -> dict[str, dict[str, Any]]:
    """Wait until these connectors have answered; return the receipts by connector."""

    def receipts() -> dict[str, dict[str, Any]]:
        return {receipt["connector"]: receipt for receipt in world.deployment.admin("cut", "show", str(cut))["receipts"]}

    wait_until(lambda: all(receipts()[name]["state"] == "answered" for name in connectors), f"not answered: {receipts()}")
    return receipts()


def expire_soon(world: Loopback, table: str, rows: str) -> None:
    """Give rows an end in two seconds, which no command does: the API takes none within the hour. Any change tells of it."""
    with closing(sqlite3.connect(world.deployment.state / "klinket.db", timeout=10)) as database:
        end = round((time.time() + 2) * 1000)
        changed = database.execute(f"update {table} set expires_at_ms = ? where {rows}", (end,)).rowcount
        database.commit()
    assert changed == 1
    world.deployment.admin("network", "create", f"told {time.monotonic_ns()}")


@dataclass(frozen=True)
class Row:
    """`command`: words of `klinket admin`, with {name} and {number}; or None.

    `expires`: (table, condition) of what ends by itself. `ends`: whose flows end ("ledger", "archive", "bystander").
    `audit`: words of the audit event of the command itself. `concerned`: the connectors that must be told.
    `code`: with which the client then ends, None where it goes on; new flows are then `refused` so.
    """

    name: str
    command: tuple[str, ...] | None
    ends: frozenset[str]
    reason: str
    scope: str
    audit: tuple[str, ...]
    concerned: tuple[str, ...] = ("office-1",)
    code: int | None = None
    expires: tuple[str, str] = ("", "")
    refused: str = "reply 2"


EVERYWHERE = ("office-1", "branch-1", UNMANNED)
OWN = frozenset({"ledger", "archive"})
ROWS = [
    Row(
        "key revoked",
        ("service", "key", "revoke", "{name}", "runner"),
        OWN,
        "service-key-revoked",
        "key {key_id}",
        ("revoke", '"runner"'),
        EVERYWHERE,
        67,
    ),
    Row(
        "account deleted",
        ("service", "delete", "{name}"),
        OWN,
        "service-key-revoked",
        "account ",
        ("delete", '"{name}"'),
        EVERYWHERE,
        67,
    ),
    Row(
        "grant taken away",
        ("service", "ungrant", "{name}", "ledger {number}"),
        frozenset({"ledger"}),
        "cut",
        "access ",
        ("remove", '"{name}"', '"ledger {number}"'),
    ),
    Row(
        "key that expires",
        None,
        OWN,
        "service-key-expired",
        "key {key_id}",
        (),
        EVERYWHERE,
        66,
        ("service_keys", "kid = '{key_id}'"),
    ),
    Row(
        "grant that expires",
        None,
        frozenset({"ledger"}),
        "cut",
        "access ",
        (),
        expires=(
            "access",
            "resource_id = (select id from resources where name = 'ledger {number}')"
            " and service_account_id = (select id from service_accounts where name = '{name}')",
        ),
    ),
    Row(
        "resource disabled",
        ("resource", "disable", "ledger {number}"),
        frozenset({"ledger", "bystander"}),
        "cut",
        "resource ",
        ("edit", '"ledger {number}"'),
    ),
    Row(
        "resource deleted",
        ("resource", "delete", "ledger {number}"),
        frozenset({"ledger", "bystander"}),
        "cut",
        "resource ",
        ("delete", '"ledger {number}"'),
    ),
    Row(
        "address changed",
        ("resource", "update", "ledger {number}", "--address", "127.77.9.{number}"),
        frozenset({"ledger", "bystander"}),
        "cut",
        "resource ",
        ("edit", '"ledger {number}"'),
        refused="reply 5",  # by the host at the new address
    ),
    Row(
        "session ended",
        ("session", "end", "{session}"),
        OWN,
        "cut",
        "session {session}",
        (),
        EVERYWHERE,
        refused="not at all",  # the key is good: the client logs in again
    ),
    Row(
        "port closed",
        ("resource", "update", "ledger {number}", "--tcp", "1"),
        frozenset({"ledger", "bystander"}),
        "cut",
        "resource ",
        ("edit", '"ledger {number}"'),
    ),
]


@pytest.mark.parametrize(("number", "row"), list(enumerate(ROWS, 10)), ids=[row.name for row in ROWS])
def test_what_is_taken_away_ends_at_once_with_a_receipt_and_an_audit_trail(world: Loopback, number: int, row: Row) -> None:
    with account(world, number) as mine, ExitStack() as stack:
        flows = {
            "ledger": [(f"ledger-{i}".encode(), mine.socks) for i in range(2)],
            "archive": [(b"archived", mine.socks)],
            "bystander": [(b"bystands", world.socks)],
        }
        live: dict[bytes, socket.socket] = {}
        for whose, opened in flows.items():
            for tag, socks in opened:
                live[tag] = stack.enter_context(mine.dial("archive" if whose == "archive" else "ledger", tag, socks))
        evidence, before = Evidence(world.deployment), last_cut_id(world)
        (session,) = [one["id"] for one in world.deployment.admin("session", "list", "--service", mine.name)]
        names = {"name": mine.name, "number": number, "key_id": mine.key_id, "session": session}
        if row.command is not None:
            world.deployment.admin(*(word.format(**names) for word in row.command))
        else:
            expire_soon(world, *(word.format(**names) for word in row.expires))

        for whose, opened in flows.items():
            for tag, _ in opened:
                if whose in row.ends:
                    assert how_it_ends(live[tag]).how == "reset"
                    assert mine.ends_at_the_service("archive" if whose == "archive" else "ledger", tag) == "reset"
        for whose, opened in flows.items():
            for tag, _ in opened:
                if whose not in row.ends:
                    world.echo(live[tag], b"it goes on")

        cut = newest_cut(world, before)
        assert cut["reason"] == row.reason
        assert cut["scope"].startswith(row.scope.format(**names))
        receipts = answered(world, cut["id"], *(name for name in row.concerned if name != UNMANNED))
        assert set(receipts) == set(row.concerned)
        told = Counter(flow["host"] for receipt in receipts.values() for flow in receipt["flows"])
        ended = Counter(mine.host("archive" if whose == "archive" else "ledger") for whose in row.ends for _ in flows[whose])
        assert told == ended
        for name, receipt in receipts.items():
            assert {flow["host"] for flow in receipt["flows"]} <= {mine.host("ledger" if name == "office-1" else "archive")}
            if name == UNMANNED:  # who did not answer, and until when something could still flow there
                assert (receipt["state"], receipt["took_ms"], receipt["flows"]) == ("pending", None, [])
                assert receipt["grants_end_at_ms"] > time.time() * 1000
            else:
                assert receipt["took_ms"] > 0
                assert receipt["grants_end_at_ms"] is None
                assert all(flow["stopped_after_ms"] <= receipt["took_ms"] for flow in receipt["flows"])
        if row.audit:
            evidence.wait_for("audit", *(word.format(**names) for word in row.audit))
        evidence.wait_for("audit", "cut ", f'"id": "{cut["id"]}"', row.reason)
        for receipt in receipts.values():
            for flow in receipt["flows"]:
                evidence.wait_for("flows", f"closed {row.reason} ", flow["flow"], flow["host"])

        refused = refusal(mine, "ledger")
        assert refused == (row.refused if row.code is None else f"the client has ended with {row.code}")
        if "archive" not in row.ends:
            mine.dial("archive", b"new flow").close()


def refusal(mine: Account, which: str) -> str:
    """Return how a new flow is refused."""
    part = mine.world.deployment.parts[f"client-{mine.name.partition('-')[2]}"]
    assert part.process is not None
    try:
        mine.dial(which, b"new flow").close()
    except ProxyRefused as refused:
        return f"reply {refused.reply}"
    except OSError:
        return f"the client has ended with {part.process.wait(10)}"
    return "not at all"


@pytest.mark.parametrize(("number", "command"), [(34, "delete"), (35, "tokens")])
def test_a_connector_that_is_removed_or_has_new_tokens_ends_what_it_carries(world: Loopback, number: int, command: str) -> None:
    """A network of its own, whose only connector that is; what another connector carries goes on."""
    admin, deployment = world.deployment.admin, world.deployment
    network, name = f"annex-{number}", f"annex-{number}-1"
    admin("network", "create", network)
    deployment.add_connector(network, name)
    deployment.start_connector(name)
    with account(world, number) as mine, WatchedService(f"127.77.3.{number}") as vault, ExitStack() as stack:
        admin("resource", "create", "--network", network, "--address", vault.address, f"vault {number}")
        admin("service", "grant", mine.name, f"vault {number}")

        def dial(tag: bytes) -> socket.socket:
            connection = dial_socks(mine.socks, vault.address, vault.port)
            world.echo(connection, tag)
            return connection

        def reached() -> bool:
            try:
                dial(b"is ready").close()
            except OSError:
                return False
            return True

        wait_until(reached, "vault is not reached", 20)
        other = stack.enter_context(mine.dial("ledger", b"elsewher"))
        flows = [stack.enter_context(dial(tag)) for tag in (b"vault--1", b"vault--2")]
        foreseen = admin("connector", command, name, "--dry-run")
        assert foreseen["cuts"][0]["kind"] == "CONNECTOR"
        before = last_cut_id(world)
        admin("connector", command, name, *(["--out", str(deployment.directory / "new.json")] if command == "tokens" else []))
        for tag, flow in zip((b"vault--1", b"vault--2"), flows, strict=True):
            assert vault.wait_for_ending(tag).how == "reset"
            assert how_it_ends(flow).how == "reset"
        cut = newest_cut(world, before)
        receipts = answered(world, cut["id"], name)
        assert set(receipts) == {name}
        assert [flow["host"] for flow in receipts[name]["flows"]] == [vault.address] * 2
        world.echo(other, b"it goes on")
        file = deployment.directory / f"cut-{number}.json"
        file.write_text(json.dumps(admin("cut", "show", str(cut["id"]))))
        assert admin("cut", "verify", str(file))["answered"] == [name]
    deployment.parts[name].stop()


def test_a_withdrawn_signing_key_ends_no_flow_whose_session_gets_a_fresh_grant(world: Loopback) -> None:
    with account(world, 33) as mine, mine.dial("ledger", b"regrants") as flow:
        state = world.deployment.state
        with closing(sqlite3.connect(state / "klinket.db", timeout=10)) as database:
            chosen = "select kid from signing_keys where purpose = 'grant' and retired_at_ms is null"
            ((kid,),) = database.execute(chosen).fetchall()
        command = [sys.executable, "-m", "klinket", "issue", "signing-key", "grant", "--withdraw", kid, "--state", str(state)]
        subprocess.run(command, check=True, capture_output=True, env=clean_environment())
        until = time.monotonic() + 14  # 5 s until the controller looks, 5 s for fresh grants, and some
        office = world.deployment.parts["office-1"]
        wait_until(lambda: "a signing key was withdrawn" in office.log.read_text(), "office-1 was not told", 20)
        while time.monotonic() < until:
            world.echo(flow, b"it goes on")
            time.sleep(0.2)
        mine.dial("ledger", b"new flow").close()


def test_revoke_while_a_command_runs_resets_its_flow_and_is_told_on_stderr(world: Loopback) -> None:
    with account(world, 30) as mine:
        key = world.deployment.add_key(mine.name, "second")
        read = (sys.executable, "-c", READER, mine.host("ledger"), str(mine.ledger.port))
        job = subprocess.Popen(
            world.deployment.run_command(key, *read, options=["--log-level", "warning"]),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip
        try:
            assert job.stdout is not None
            assert job.stdout.readline() == "from-run\n"
            with mine.dial("ledger", b"otherkey") as other:
                world.deployment.admin("service", "key", "revoke", mine.name, "second")
                output, errors = job.communicate(timeout=20)
                world.echo(other, b"the account's other key still reaches")
        finally:
            job.kill()
        assert (job.returncode, output) == (9, "reset\n"), errors  # the command's own exit code
        assert "klinket: service-key-revoked: " in errors
        assert " WARNING klinket." in errors  # as the level asks for
        assert "the command goes on without access" in errors
        again = world.run("echo", "it ran", key=key)
        assert (again.returncode, again.stdout) == (67, "")
        assert "service-key-revoked" in again.stderr


def test_a_connector_that_does_not_answer_is_named_and_answers_when_it_wakes(world: Loopback) -> None:
    """The program's side ends all the same: the client ends it."""
    with account(world, 31) as mine:
        ledger, archive = mine.dial("ledger", b"answered"), mine.dial("archive", b"sleeping")
        before = last_cut_id(world)
        asleep = world.deployment.parts["branch-1"].pid
        os.kill(asleep, signal.SIGSTOP)
        try:
            world.deployment.admin("service", "key", "revoke", mine.name, "runner")
            with ledger, archive:
                assert how_it_ends(ledger).how == how_it_ends(archive).how == "reset"
            cut = newest_cut(world, before)
            receipts = answered(world, cut["id"], "office-1")
            assert len(receipts["office-1"]["flows"]) == 1
            assert (receipts["branch-1"]["state"], receipts["branch-1"]["flows"]) == ("pending", [])
            table = world.deployment.admin_process("cut", "list").stdout.splitlines()
            assert "1 of 3" in table[1], f"the table does not say that some are missing: {table[:2]}"
        finally:
            woken_at = time.time()
            os.kill(asleep, signal.SIGCONT)
        receipts = answered(world, cut["id"], "office-1", "branch-1")
        assert mine.ends_at_the_service("archive", b"sleeping") == "reset"
        clocks = 100  # ms by which a connector may misjudge the controller's clock
        assert receipts["branch-1"]["stopped_at_ms"] >= woken_at * 1000 - clocks
        assert receipts["branch-1"]["grants_end_at_ms"] is None


def test_the_connector_ends_a_flow_whose_client_does_nothing(world: Loopback) -> None:
    """A client that is stopped, or in strange hands, hears nothing: the resource is let go all the same."""
    with account(world, 32) as mine:
        flow, before = mine.dial("ledger", b"deafened"), last_cut_id(world)
        deaf = world.deployment.parts["client-32"].pid
        os.kill(deaf, signal.SIGSTOP)
        try:
            world.deployment.admin("service", "key", "revoke", mine.name, "runner")
            assert mine.ends_at_the_service("ledger", b"deafened") == "reset"
            cut = newest_cut(world, before)
            (ended,) = answered(world, cut["id"], "office-1")["office-1"]["flows"]
            assert (ended["host"], ended["port"]) == (mine.host("ledger"), mine.ledger.port)
        finally:
            os.kill(deaf, signal.SIGCONT)
        with flow:
            assert how_it_ends(flow).how == "reset"
