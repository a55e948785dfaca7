"""Exports over HTTP: complete, bounded, provable, for tokens that may read."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from klinket.controller import audit_signing, exports
from klinket.controller.app import audit_log, export_csv, flow_events, retention
from klinket.controller.exports import MAX_EXPORTS, MAX_EXPORTS_PER_TOKEN
from klinket.controller.pruning import STEADY_SECONDS, Pruning
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.audit_chain import SignedRange
from klinket.domain.audit_verification import AuditNotIntact, FindingKind, verify
from klinket.net.channel import controller_context
from klinket.wire.audit_export import read_records
from klinket.wire.audit_signature import audit_keys, verify_anchor, verify_block, verify_range
from klinket.wire.control import FlowEvent
from klinket.wire.paths import AUDIT_EXPORT_PATH as AUDIT_PATH
from klinket.wire.paths import FLOWS_EXPORT_PATH as FLOWS_PATH
from tests.eventually import eventually
from tests.unit.controller.running import Running

PARAMETERS = dict[str, str]


async def export(controller: Running, path: str, token: str | None = None, **parameters: str) -> Any:
    """Return the answer; `begin` stands for the parameter `from`."""
    asked = {name.replace("begin", "from"): value for name, value in parameters.items()}
    async with controller.http() as client:
        headers = {"X-API-KEY": controller.tokens["read",] if token is None else token}
        return await client.get(path, params=asked, headers=headers)


async def record(controller: Running, count: int) -> None:
    """Write more audit events."""

    def write(tx: Any) -> None:
        for number in range(count):
            target = {"version": "1", "type": "group", "id": str(number), "name": f"=cmd {number} ü"}
            tx.record(AuditEvent(AuditAction.EDIT, SYSTEM, (target,), {"ratio": 0.1, "nested": [{"a": None}]}))

    await controller.write(write)


async def keys(controller: Running) -> Any:
    return audit_keys((await controller.get("/.well-known/jwks.json")).json())


async def verified(controller: Running, content: bytes) -> SignedRange:
    known = await keys(controller)
    return verify(
        read_records(content.splitlines(keepends=True)),
        lambda token: verify_block(token, known),
        lambda token: verify_range(token, known),
        lambda token: verify_anchor(token, known),
    )


@pytest.mark.parametrize("events", [0, 1, 99, 100, 101, 730])
async def test_an_export_of_the_audit_proves_itself_with_public_keys_alone(controller: Running, events: int) -> None:
    await record(controller, events)
    answer = await export(controller, AUDIT_PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = await controller.audit()
    whole = await verified(controller, answer.content)
    assert (whole.first, whole.last, whole.digest) == (1, len(rows), rows[-1].digest)
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert [line["event"]["number"] for line in lines if line["event_type"] == "audit_log"] == [row.number for row in rows]
    assert lines[-1]["event_type"] == "audit_trailer"


async def test_what_the_database_was_made_to_forget_or_to_say_is_named(controller: Running) -> None:
    await record(controller, 40)
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)

    def tamper(tx: Any) -> None:
        (row,) = tx.audit.find(number=17)
        tx.audit.change(row.id, action="login")

    await controller.write(tamper)
    with pytest.raises(AuditNotIntact) as raised:
        await verified(controller, (await export(controller, AUDIT_PATH)).content)
    assert (raised.value.kind, raised.value.number) == (FindingKind.ALTERED, 17)
    await controller.write(lambda tx: tx.audit.remove(number=9))
    with pytest.raises(AuditNotIntact) as raised:
        await verified(controller, (await export(controller, AUDIT_PATH)).content)
    assert (raised.value.kind, raised.value.number) == (FindingKind.MISSING, 9)


async def test_a_time_range_is_exported_from_its_first_event_to_its_last(controller: Running) -> None:
    moments = []
    for _ in range(3):
        await record(controller, 130)
        controller.offset += 3600
        moments.append((await controller.audit())[-1].time_ms)
    iso = audit_log.iso
    last = [row.number for row in await controller.audit() if row.time_ms <= moments[0]][-1]
    content = (await export(controller, AUDIT_PATH, begin=iso(moments[0] + 1), end=iso(moments[1] + 1))).content
    assert (await verified(controller, content)).first == last + 1
    ranged = (await export(controller, AUDIT_PATH, begin=iso(moments[0] + 1), to=iso(moments[1] + 1))).content
    whole = await verified(controller, ranged)
    assert (whole.first, whole.last) == (last + 1, last + 130)
    assert (whole.begin_ms, whole.end_ms) == (moments[0] + 1, moments[1] + 1)
    empty = await verified(controller, (await export(controller, AUDIT_PATH, begin="2099-01-01T00:00:00Z")).content)
    assert empty.last == empty.first - 1


async def test_a_clock_that_was_ahead_for_a_moment_hides_nothing_from_a_range(controller: Running) -> None:
    begun = (await controller.audit())[0].time_ms
    controller.offset += 3600
    await record(controller, 1)
    controller.offset -= 3600
    await record(controller, 10)
    times = [row.time_ms for row in await controller.audit()]
    assert times == sorted(times), "no event is recorded as earlier than the one before it"

    def as_older_versions_recorded(tx: Any) -> None:
        for row in tx.audit.find()[-10:]:
            tx.audit.change(row.id, time_ms=begun + 1_000)

    for change in (lambda tx: None, as_older_versions_recorded):
        await controller.write(change)
        for begin_ms, end_ms in ((begun, begun + 7_200_000), (begun + 1_800_000, begun + 7_200_000), (begun, None)):
            whole = await controller.read(lambda tx, a=begin_ms, b=end_ms: audit_log.range_of(tx, "n", a, b))  # type: ignore[misc]
            (ahead,) = (row.number for row in (await controller.audit())[-11:-10])
            assert whole.first <= ahead
            assert whole.last == len(times)


async def test_events_recorded_while_the_clock_was_ahead_are_signed_without_a_wait(controller: Running) -> None:
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    controller.offset += 3600
    await record(controller, 1)
    controller.offset -= 3600
    await audit_signing.sign_waiting(controller.store, controller.trust)
    (newest,) = await controller.read(lambda tx: tx.audit_signatures.newest(1, order="number"))
    assert newest.number == len(await controller.audit())


async def test_exports_are_packed_when_asked_for(controller: Running) -> None:
    answer = await export(controller, AUDIT_PATH, gzip="true")
    assert answer.headers["content-type"] == "application/gzip"
    assert 'filename="audit.jsonl.gz"' in answer.headers["content-disposition"]
    await verified(controller, gzip.decompress(answer.content))


async def test_audit_keys_prove_what_they_signed_for_ever(controller: Running) -> None:
    await record(controller, 3)
    content = (await export(controller, AUDIT_PATH)).content
    controller.offset += 400 * 24 * 3600
    await controller.reopen_trust()
    controller.offset += 9 * 24 * 3600
    await controller.reopen_trust()
    signer = controller.trust.signers[KeyPurpose.AUDIT].kid
    assert len(controller.trust.keys[KeyPurpose.AUDIT]) == 2
    assert len(controller.trust.keys[KeyPurpose.CUT]) == 1
    kids = [key["kid"] for key in controller.trust.jwks()["keys"]]  # type: ignore[attr-defined]
    assert signer in kids
    known = audit_keys(controller.trust.jwks())
    verify(read_records(content.splitlines()), lambda token: verify_block(token, known), lambda token: verify_range(token, known))


async def test_events_are_signed_when_there_are_enough_or_when_they_have_waited(controller: Running) -> None:
    async def signed() -> int:
        await audit_signing.sign_waiting(controller.store, controller.trust)
        newest = await controller.read(lambda tx: tx.audit_signatures.newest(1))
        return newest[0].number if newest else 0

    assert await signed() == 0
    await record(controller, audit_log.SIGN_EVENTS)
    assert await signed() == audit_log.SIGN_EVENTS
    controller.offset += audit_log.SIGN_AFTER_MS / 1000 + 1
    assert await signed() == len(await controller.audit())
    count = len(await controller.read(lambda tx: tx.audit_signatures.find()))
    await signed()
    assert len(await controller.read(lambda tx: tx.audit_signatures.find())) == count


async def test_the_audit_as_csv_has_no_cell_that_a_spreadsheet_computes(controller: Running) -> None:
    await record(controller, 2)
    answer = await export(controller, AUDIT_PATH, format="csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(rows) == len(await controller.audit())
    assert rows[-1]["target_names"] == "'=cmd 1 ü"
    assert json.loads(rows[-1]["targets"])[0]["name"] == "=cmd 1 ü"
    assert rows[-1]["digest"] == (await controller.last_event()).digest


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"), ("  @SUM(1)", "'  @SUM(1)"), ("\n=1", "'\n'=1"), ("\uff1d1", "'\uff1d1"), ("\uff20x", "'\uff20x"),
        ("web;=cmd|' /C calc'!A0", "web;'=cmd|' /C calc'!A0"), ("a\r\n+1", "a\r'\n'+1"), ("a\t-1", "a\t'-1"),
        ("a - b; c = d", "a - b; c = d"), ("büro", "büro"),
    ],
)  # fmt: skip
def test_no_part_of_a_cell_begins_as_a_formula_however_a_spreadsheet_parts_it(text: str, cell: str) -> None:
    ((shown,),) = csv.reader(io.StringIO(export_csv.lines([[text]]).decode(), newline=""))
    assert shown == cell


# ---- who may, and what is asked


@pytest.mark.parametrize("path", [AUDIT_PATH, FLOWS_PATH])
async def test_only_tokens_that_may_read_export(controller: Running, path: str) -> None:
    assert (await export(controller, path, token="")).status_code == 401
    assert (await export(controller, path, token="kl_api_wrong")).status_code == 401
    assert (await export(controller, path)).status_code == 200


@pytest.mark.parametrize("path", [AUDIT_PATH, FLOWS_PATH])
@pytest.mark.parametrize(
    "parameters",
    [
        {"format": "xml"}, {"from": "yesterday"}, {"from": "2026-01-01"}, {"to": "0001-01-01T00:00:00+23:59"}, {"gzip": "maybe"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ],
)  # fmt: skip
async def test_what_is_asked_wrongly_is_named(controller: Running, path: str, parameters: PARAMETERS) -> None:
    answer = await export(controller, path, **parameters)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid-input"


async def test_too_many_exports_at_a_time_are_told_to_wait(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_EXPORTS > 1
    monkeypatch.setattr(exports, "MAX_EXPORTS", 0)
    answer = await export(controller, FLOWS_PATH)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    monkeypatch.undo()
    for _ in range(MAX_EXPORTS + 1):  # those that are over do not count
        assert (await export(controller, FLOWS_PATH)).status_code == 200


async def test_exports_that_were_asked_for_at_once_count_from_the_start(controller: Running) -> None:
    asked = [export(controller, path) for path in (FLOWS_PATH, AUDIT_PATH) for _ in range(3 * MAX_EXPORTS)]
    statuses = [answer.status_code for answer in await asyncio.gather(*asked)]
    assert set(statuses) == {200, 429}
    assert (await export(controller, FLOWS_PATH)).status_code == 200


@pytest.fixture
async def wide(live: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """A controller whose exports of network events are larger than what connections hold on the way."""
    events = [seen("closed", f"flow-{number}", int(live.clock() * 1000)) for number in range(32)]
    await live.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    line = b"x" * 1_000_000
    monkeypatch.setattr(exports, "_network_line", lambda _: line)
    return live


@contextlib.asynccontextmanager
async def unread(live: Running, token: str) -> AsyncIterator[bytes]:
    """Ask for an export over a connection of its own and read nothing but the answer's first line."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", live.config.listen.port, ssl=controller_context(live.authority), server_hostname="127.0.0.1"
        )
    try:
        writer.write(f"GET {FLOWS_PATH} HTTP/1.1\r\nHost: x\r\nX-API-KEY: {token}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            yield await reader.readline()
    finally:
        writer.transport.abort()


async def test_a_token_that_does_not_read_keeps_no_other_from_exporting(wide: Running) -> None:
    silent, other = wide.tokens["read",], wide.tokens["read", "write", "provision"]
    async with contextlib.AsyncExitStack() as held:
        for _ in range(MAX_EXPORTS_PER_TOKEN):
            assert b" 200 " in await held.enter_async_context(unread(wide, silent))
        assert b" 429 " in await held.enter_async_context(unread(wide, silent))
        assert b" 200 " in await held.enter_async_context(unread(wide, other))
    await eventually(lambda: len(wide.seats) == 0)
    async with unread(wide, silent) as line:
        assert b" 200 " in line


async def test_an_export_that_nobody_reads_ends_with_its_connection(wide: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "STALLED_SECONDS", 0.5)
    async with unread(wide, wide.tokens["read",]) as line:
        assert b" 200 " in line
        assert len(wide.seats) == 1
        await eventually(lambda: len(wide.seats) == 0)


async def test_an_export_in_pieces_comes_whole(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [seen("closed", f"flow-{number}", int(controller.clock() * 1000)) for number in range(5)]
    await controller.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    whole = (await export(controller, FLOWS_PATH)).content
    monkeypatch.setattr(exports, "PIECE_BYTES", 7)
    assert (await export(controller, FLOWS_PATH)).content == whole


# ---- network events


def seen(kind: str, flow: str, time_ms: int, **more: Any) -> FlowEvent:
    given: dict[str, Any] = {
        "event": kind, "flow": flow, "time_ms": time_ms, "session": "s1", "service_account": "unknown", "key": "key-1",
        "resource": None, "host": "db.internal", "port": 5432, "protocol": "tcp", **more,
    }  # fmt: skip
    return FlowEvent(**given)


@pytest.fixture
async def seen_flows(controller: Running) -> int:
    """Four connections, the times in seconds after the one returned (in milliseconds)."""
    base = int(controller.clock()) * 1000 - 60_000
    network = await controller.add_network("=office")
    await controller.add_connector(network, "@one")
    events = [
        seen("established", "a", base + 1_000, resource_ip="10.0.0.5"),
        seen("closed", "a", base + 3_000, bytes_from_client=10, bytes_to_client=20, duration_ms=2_500),
        seen("failed", "b", base + 4_000, failure="name-not-found"),
        seen("denied", "c", base + 5_000, failure="not-granted", host="=1+1"),
        seen("established", "d", base + 6_000, resource_ip="10.0.0.6", host="10.0.0.6"),
    ]
    await controller.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    return base


async def test_network_events_as_json_are_one_object_a_line(controller: Running, seen_flows: int) -> None:
    answer = await export(controller, FLOWS_PATH)
    lines = [json.loads(line) for line in answer.content.splitlines()]
    assert [line["event_type"] for line in lines] == ["network"] * 5
    assert [line["event"]["event_type"] for line in lines] == [
        "established_connection", "closed_connection", "failed_to_connect", "denied_access", "established_connection",
    ]  # fmt: skip
    assert [line["event"]["status"] for line in lines] == ["NORMAL", "NORMAL", "DNS_ERROR", "CONNECTION_FAILED", "NORMAL"]


async def test_network_events_as_csv_are_one_finished_connection_a_line(controller: Running, seen_flows: int) -> None:
    text = (await export(controller, FLOWS_PATH, format="csv")).text
    assert text.splitlines()[0].split(",")[:22] == [
        "start_time",
        "end_time",
        "user",
        "user_id",
        "device_id",
        "client_ip",
        "connector",
        "connector_id",
        "resource_ip",
        "resource_port",
        "resource_domain",
        "resource_id",
        "protocol",
        "status",
        "bytes_transferred",
        "bytes_received",
        "remote_network",
        "remote_network_id",
        "applied_rule",
        "relays",
        "relay_ips",
        "relay_ports",
    ]
    closed, failed, denied = list(csv.DictReader(io.StringIO(text)))
    iso = audit_log.iso
    assert (closed["start_time"], closed["end_time"]) == (iso(seen_flows + 1_000), iso(seen_flows + 3_000))
    assert (closed["bytes_transferred"], closed["bytes_received"], closed["resource_ip"]) == ("10", "20", "10.0.0.5")
    assert (closed["status"], closed["resource_domain"], closed["user"], closed["user_id"]) == ("NORMAL", "db.internal", "", "")
    assert (failed["status"], failed["start_time"]) == ("DNS_ERROR", iso(seen_flows + 4_000))
    for row in (failed, denied):
        assert (row["end_time"], row["bytes_transferred"], row["bytes_received"], row["resource_ip"]) == ("", "", "", "")
    assert (denied["status"], denied["failure"], denied["resource_domain"]) == ("CONNECTION_FAILED", "not-granted", "'=1+1")
    assert (denied["connector"], denied["remote_network"]) == ("'@one", "'=office")


async def test_a_range_of_network_events_counts_by_their_end(controller: Running, seen_flows: int) -> None:
    iso = audit_log.iso
    text = (await export(controller, FLOWS_PATH, format="csv", begin=iso(seen_flows + 2_000), to=iso(seen_flows + 5_000))).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["status"] for row in rows] == ["NORMAL", "DNS_ERROR"]
    assert rows[0]["start_time"] == iso(seen_flows + 1_000)


async def test_a_long_export_is_read_page_by_page(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_events, "PAGE_EVENTS", 7)
    now = int(controller.clock() * 1000)
    events = [seen("closed", f"flow-{number}", now - 1_000 + number) for number in range(40)]
    await controller.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    answer = await export(controller, FLOWS_PATH)
    found = [json.loads(line)["event"]["connection"]["id"] for line in answer.content.splitlines()]
    assert found == [event.flow for event in events]
    assert len((await export(controller, FLOWS_PATH, format="csv")).text.splitlines()) == 41


async def test_an_export_of_a_pruned_audit_begins_with_its_anchor_and_proves_itself(controller: Running) -> None:
    await record(controller, 250)
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    last = (await controller.audit())[-1].number
    begin = audit_log.iso(int(controller.clock() * 1000))
    controller.offset += (retention.MIN_DAYS + 2) * 24 * 3600
    pruning = Pruning(controller.store, controller.trust, retention.MIN_DAYS, lambda: False, lambda: STEADY_SECONDS)
    await record(controller, 10)
    await pruning.round()
    content = (await export(controller, AUDIT_PATH)).content
    whole = await verified(controller, content)
    assert (whole.first, whole.last) == (last + 1, last + 11)
    lines = content.splitlines(keepends=True)
    assert json.loads(lines[0])["event_type"] == "audit_anchor"
    with pytest.raises(AuditNotIntact) as raised:
        await verified(controller, b"".join(lines[1:]))
    assert (raised.value.kind, raised.value.number) == (FindingKind.MISSING, 1)
    ranged = (await export(controller, AUDIT_PATH, begin=begin)).content
    assert (await verified(controller, ranged)).first == last + 1
    table = (await export(controller, AUDIT_PATH, format="csv")).text
    assert "audit_anchor" not in table
    assert len(table.splitlines()) == 12
