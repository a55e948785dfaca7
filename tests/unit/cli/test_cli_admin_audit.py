"""`klinket admin audit` and `klinket admin flow` against a controller that listens: lists, exports, proof."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from klinket.cli.admin.api import Missing
from klinket.cli.admin.time_range import moment
from klinket.cli.exit_codes import exit_code
from klinket.cli.main import klinket
from klinket.controller.app import flow_events
from klinket.controller.graphql.global_id import to_global_id
from klinket.domain.audit_verification import AuditNotIntact, FindingKind
from klinket.domain.errors import Conflict, InvalidInput, KlinketError
from klinket.wire.control import FlowEvent
from tests.unit.controller.running import Running


class Shell:
    """Runs `klinket admin` with the environment of an admin."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        (folder / "ca.pem").write_text(running.authority)

    async def run(self, *words: str, offline: bool = False) -> Result:
        environment = {
            "KLINKET_URL": None if offline else self.running.config.public_url,
            "KLINKET_CA": None if offline else str(self.folder / "ca.pem"),
            "KLINKET_API_TOKEN": None if offline else self.running.tokens["read",],
        }
        return await asyncio.to_thread(CliRunner().invoke, klinket, ["admin", *words], env=environment)

    async def ok(self, *words: str, offline: bool = False) -> str:
        result = await self.run(*words, offline=offline)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.stdout


@pytest.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    running = Running(tmp_path / "state")
    await running.open()
    async with running.listening():
        yield Shell(running, tmp_path)
    running.store.close()


async def test_the_audit_is_listed_and_shown_for_people_and_scripts(shell: Shell) -> None:
    await shell.running.add_account("ci")
    await shell.running.add_network("office")
    table = await shell.ok("audit", "list", "--from", "1h", "--actor", "api")
    assert "API read and write and provision" in table
    assert table.index("remoteNetwork office") < table.index("serviceAccount ci")
    events = json.loads(await shell.ok("audit", "list", "--json", "--limit", "1"))
    assert [event["targets"][0]["name"] for event in events] == ["office"]
    assert json.loads(await shell.ok("audit", "list", "--json", "--target-type", "none")) == []
    shown = json.loads(await shell.ok("audit", "show", str(events[0]["number"]), "--json"))
    assert shown == events[0]
    assert "remoteNetwork office" in await shell.ok("audit", "show", str(events[0]["number"]))
    missed = await shell.run("audit", "show", "99999")
    assert isinstance(missed.exception, KlinketError)
    assert exit_code(missed.exception) == 81


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.jsonl.gz"])
async def test_an_export_is_verified_with_the_keys_of_the_controller_or_of_a_file(shell: Shell, name: str) -> None:
    for number in range(5):
        await shell.running.add_account(f"account-{number}")
    out = shell.folder / name
    await shell.ok("audit", "export", "--out", str(out))
    assert (out.read_bytes()[:2] == b"\x1f\x8b") is name.endswith(".gz")
    assert not list(shell.folder.glob("*.partial"))
    assert "events" in await shell.ok("audit", "verify", str(out))
    keys = shell.folder / "jwks.json"
    keys.write_text(json.dumps(shell.running.trust.jwks()))
    told = json.loads(await shell.ok("audit", "verify", str(out), "--keys", str(keys), "--json", offline=True))
    assert told["ok"] is True
    assert (told["first"], told["last"]) == (1, len(await shell.running.audit()))


async def test_the_first_wrong_event_is_named_and_the_exit_code_says_so(shell: Shell) -> None:
    await shell.running.add_account("ci")
    out = shell.folder / "audit.jsonl"
    await shell.ok("audit", "export", "--out", str(out))
    lines = out.read_text().splitlines(keepends=True)
    document = json.loads(lines[2])
    document["event"]["actor"]["id"] = "666"
    out.write_text("".join([*lines[:2], json.dumps(document) + "\n", *lines[3:]]))
    result = await shell.run("audit", "verify", str(out), "--json")
    assert isinstance(result.exception, AuditNotIntact)
    assert (result.exception.kind, result.exception.number) == (FindingKind.ALTERED, 3)
    assert "event 3 was altered" in result.exception.message
    assert exit_code(result.exception) == 92
    assert json.loads(result.stdout)["number"] == 3
    out.write_text("".join(lines[:-1]))
    result = await shell.run("audit", "verify", str(out))
    assert isinstance(result.exception, AuditNotIntact)
    assert result.exception.kind is FindingKind.CUT


async def test_keys_of_another_controller_prove_nothing(shell: Shell, tmp_path: Path) -> None:
    out, keys = shell.folder / "audit.jsonl", shell.folder / "jwks.json"
    await shell.ok("audit", "export", "--out", str(out))
    other = Running(tmp_path / "other")
    await other.open()
    keys.write_text(json.dumps(other.trust.jwks()))
    other.store.close()
    result = await shell.run("audit", "verify", str(out), "--keys", str(keys), offline=True)
    assert isinstance(result.exception, AuditNotIntact)
    assert result.exception.kind is FindingKind.UNPROVEN


@pytest.mark.parametrize("content", [b"", b"not json", b'{"keys": 5}', b"[]"])
async def test_a_file_that_holds_no_keys_is_named(shell: Shell, content: bytes) -> None:
    out, keys = shell.folder / "audit.jsonl", shell.folder / "jwks.json"
    out.write_bytes(b"")
    keys.write_bytes(content)
    result = await shell.run("audit", "verify", str(out), "--keys", str(keys), offline=True)
    assert isinstance(result.exception, InvalidInput)
    assert result.exception.field == "keys"


async def test_a_gzip_file_that_is_not_whole_is_named(shell: Shell) -> None:
    out = shell.folder / "audit.jsonl.gz"
    out.write_bytes(gzip.compress(b"x" * 10_000)[:30])
    result = await shell.run("audit", "verify", str(out))
    assert isinstance(result.exception, InvalidInput)
    assert result.exception.field == "file"


async def test_without_keys_or_a_controller_nothing_is_verified(shell: Shell) -> None:
    out = shell.folder / "audit.jsonl"
    out.write_bytes(b"")
    result = await shell.run("audit", "verify", str(out), offline=True)
    assert isinstance(result.exception, InvalidInput)


async def test_an_export_that_fails_leaves_no_file(shell: Shell) -> None:
    out = shell.folder / "audit.jsonl"
    result = await shell.run("audit", "export", "--from", "2030-01-01", "--to", "2029-01-01", "--out", str(out))
    assert isinstance(result.exception, KlinketError)
    assert not out.exists()
    assert not list(shell.folder.glob("*.partial"))


async def test_network_events_are_listed_and_exported(shell: Shell) -> None:
    network = await shell.running.add_network()
    await shell.running.add_connector(network, "office-1")
    account = await shell.running.add_account("ci")
    _, key_file = await shell.running.add_key(account)
    now = int(shell.running.clock() * 1000)

    def seen(kind: str, flow: str, **more: Any) -> FlowEvent:
        return FlowEvent(
            event=kind, flow=flow, time_ms=now, session="s", service_account=key_file.service_account_id, key=key_file.key_id,
            resource=None, host="db.internal", port=5432, protocol="tcp", **more,
        )  # fmt: skip

    events = [seen("closed", "a", bytes_from_client=7, failure="service-key-revoked"), seen("denied", "b", failure="not-granted")]
    await shell.running.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    table = await shell.ok("flow", "list", "--service", "ci", "--network", "office", "--connector", "office-1")
    assert "tcp db.internal:5432" in table
    assert "not-granted" in table
    assert "service-key-revoked" in table  # why a connection ended early
    denied = json.loads(await shell.ok("flow", "list", "--kind", "denied", "--from", "24h", "--json"))
    assert [one["connection"]["id"] for one in denied] == ["b"]
    rows = list(csv.DictReader(io.StringIO(await shell.ok("flow", "export", "--format", "csv"))))
    assert [(row["service_account"], row["service_key"], row["failure"]) for row in rows] == [
        ("ci", "runner", "service-key-revoked"),
        ("ci", "runner", "not-granted"),
    ]
    lines = (await shell.ok("flow", "export")).splitlines()
    assert [json.loads(line)["event"]["connection"]["id"] for line in lines] == ["a", "b"]


async def test_a_network_event_shows_its_resource_by_name_and_is_found_by_the_name_of_its_key(shell: Shell) -> None:
    network = await shell.running.add_network()
    await shell.running.add_connector(network, "office-1")
    await shell.running.add_resource(network, "Databases", "*.db.internal")
    await shell.running.add_resource(network, "Cache", "cache.internal")
    (first, first_file), (_, other_file) = [
        await shell.running.add_key(await shell.running.add_account(name), name="runner") for name in ("ci", "nightly")
    ]
    now = int(shell.running.clock() * 1000)
    events = [
        FlowEvent(
            event="established", flow=f"{file.key_id}{resource}", time_ms=now, session="s",
            service_account=file.service_account_id, key=file.key_id, resource=resource, host=host, port=5432, protocol="tcp",
        )
        for file, resource, host in ((first_file, 1, "a.db.internal"), (other_file, 2, "cache.internal"))
    ]  # fmt: skip
    await shell.running.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    table = await shell.ok("flow", "list")
    assert "Databases (*.db.internal)" in table
    assert "Cache " in table
    assert "(cache.internal)" not in table  # it is the address that was reached
    for words in (("--key", first), ("--service", "ci", "--key", "runner")):
        (only,) = json.loads(await shell.ok("flow", "list", "--json", *words))
        assert only["service_account"]["name"] == "ci"
        await shell.ok("session", "list", *words)
    several = (await shell.run("flow", "list", "--key", "runner")).exception
    assert isinstance(several, Conflict)
    assert "--service" in str(several.hint)
    unknown = (await shell.run("flow", "list", "--key", "nobody")).exception
    assert isinstance(unknown, Missing)
    gone = to_global_id("ServiceAccountKey", 99)  # events outlive a deleted key: its id does still
    assert json.loads(await shell.ok("flow", "list", "--key", gone, "--json")) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("24h", "2026-12-30T12:00:00+00:00"),
        ("7d", "2026-12-24T12:00:00+00:00"),
        ("30m", "2026-12-31T11:30:00+00:00"),
        ("2026-12-01", "2026-12-01T00:00:00+00:00"),
        ("2026-12-01T12:00:00+01:00", "2026-12-01T11:00:00+00:00"),
        ("2026-12-01T12:00:00Z", "2026-12-01T12:00:00+00:00"),
        (None, None),
    ],
)
def test_a_moment_is_a_time_or_how_long_ago(text: str | None, wanted: str | None) -> None:
    assert moment("from", text, 1_798_718_400.0) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "24", "h", "-1h", "999999w", "2026-13-01"])
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        moment("from", text, 1_798_718_400.0)
    assert raised.value.field == "from"


async def test_retention_says_for_how_long_the_audit_is_kept_and_what_was_removed(shell: Shell) -> None:
    shown = json.loads(await shell.ok("audit", "retention", "--json"))
    count = len(await shell.running.audit())
    nothing = {"pruned": 0, "digest": None, "until": None, "prunedAt": None, "heldBy": []}
    assert shown == {"days": 365, "events": count, **nothing}
    assert "365" in await shell.ok("audit", "retention")
