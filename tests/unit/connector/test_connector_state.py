"""What a connector keeps: its key, cuts, and flow events, bounded and over restarts."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from klinket.connector import events as connector_events
from klinket.connector import state as connector_state
from klinket.connector.core import Flow
from klinket.connector.events import FlowEventLog
from klinket.connector.limits import MAX_FRESH_BATCHES
from klinket.connector.state import ConnectorState
from klinket.domain.errors import InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import FlowId
from klinket.wire.control import FlowEvents
from klinket.wire.signing import thumbprint
from tests.unit.connector.conftest import DATABASE, NOW, principal, tcp


def flow(number: int = 1) -> Flow:
    return Flow(FlowId(f"{number:032x}"), principal(), DATABASE, tcp("db.internal", 5432), NOW, DATABASE.id, "db.internal")


async def sent(log: FlowEventLog) -> list[FlowEvents]:
    """Return what is to be sent now."""
    await log.spool()
    return [batch async for batch in log.unsent()]


# ---- the identity key


def test_the_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    key = ConnectorState(folder).identity_key()
    again = ConnectorState(folder).identity_key()
    assert thumbprint(key.public_key()) == thumbprint(again.public_key())
    assert stat.S_IMODE((folder / "identity.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_broken_key_is_told_by_its_path_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "identity.pem").write_text("-----BEGIN PRIVATE KEY-----\nhalf\n")
    with pytest.raises(InvalidToken, match=r"identity\.pem"):
        ConnectorState(tmp_path).identity_key()
    assert (tmp_path / "identity.pem").read_text().endswith("half\n")


# ---- cuts


def test_cuts_survive_a_restart(tmp_path: Path) -> None:
    assert ConnectorState(tmp_path).kept_cuts() == ((0, 0), [])
    ConnectorState(tmp_path).keep_cuts((2, 77), ["one", "two"])
    assert ConnectorState(tmp_path).kept_cuts() == ((2, 77), ["one", "two"])


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"head": [1]}', b'{"head": ["x", 1], "cuts": []}', b"\xff\xfe", b"null"])
def test_cuts_that_are_not_readable_stop_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cuts.json").write_bytes(content)
    assert ConnectorState(tmp_path).kept_cuts() == ((0, 0), [])


# ---- flow events


async def test_events_are_sent_once_on_a_channel_and_forgotten_when_stored(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(), 7, "10.0.0.5")
    (batch,) = await sent(log)
    (event,) = batch.events
    assert (event.event, event.flow, event.relay, event.resource_ip) == ("established", flow().id, 7, "10.0.0.5")
    assert (event.host, event.port, event.protocol, event.resource) == ("db.internal", 5432, "tcp", DATABASE.id)
    assert await sent(log) == []
    log.channel_lost()
    assert [again.batch for again in await sent(log)] == [batch.batch]
    await log.stored(batch.batch)
    log.channel_lost()
    assert await sent(log) == []


async def test_a_clock_that_was_set_back_makes_no_flow_shorter_than_nothing(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW - 0.7)
    log.closed(flow(), 7, "10.0.0.5", 10, 20, None)
    (batch,) = await sent(log)
    assert batch.events[0].duration_ms == 0


async def test_events_survive_a_restart_and_numbers_only_grow(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.closed(flow(1), 7, "10.0.0.5", 10, 20, None)
    await log.spool()
    log.closed(flow(2), 7, "10.0.0.5", 30, 40, FlowFailure.CUT)
    await log.spool()
    restarted = FlowEventLog(ConnectorState(tmp_path), lambda: NOW - 3600)  # the clock went back, too
    first, second = await sent(restarted)
    assert first.batch < second.batch
    assert [event.flow for event in (*first.events, *second.events)] == [flow(1).id, flow(2).id]
    assert (second.events[0].bytes_to_client, second.events[0].bytes_from_client) == (30, 40)
    assert second.events[0].failure == "cut"
    restarted.established(flow(3), 7, "")
    (third,) = await sent(restarted)
    assert third.batch > second.batch


async def test_a_lost_folder_gives_no_number_twice(tmp_path: Path) -> None:
    one = FlowEventLog(ConnectorState(tmp_path / "one"), lambda: NOW)
    one.established(flow(), 7, "")
    two = FlowEventLog(ConnectorState(tmp_path / "two"), lambda: NOW + 1)
    two.established(flow(), 7, "")
    assert (await sent(one))[0].batch < (await sent(two))[0].batch


async def test_a_batch_is_sent_as_it_went_to_disk_also_when_many_came_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_events, "BATCH_EVENTS", 1)
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    for number in range(MAX_FRESH_BATCHES + 3):
        log.established(flow(number), 7, "")
    flows = [event.flow for batch in await sent(log) for event in batch.events]
    assert flows == [flow(number).id for number in range(MAX_FRESH_BATCHES + 3)]
    log.channel_lost()
    assert [event.flow for batch in await sent(log) for event in batch.events] == flows


async def test_whoever_sends_hears_of_each_batch_on_disk(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    waiting = asyncio.ensure_future(log.more())
    await log.spool()
    await asyncio.sleep(0)
    assert not waiting.done(), "nothing was collected"
    log.established(flow(1), 7, "")
    await log.spool()
    async with asyncio.timeout(10):
        await waiting
    assert len([batch async for batch in log.unsent()]) == 1


async def test_a_batch_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_events, "BATCH_EVENTS", 3)
    state = ConnectorState(tmp_path)
    log = FlowEventLog(state, lambda: NOW)
    for number in range(7):
        log.established(flow(number), 7, "")
    await log.spool()
    assert [len(state.batch(number)) for number in state.spooled()] == [3, 3, 1]


async def test_events_that_wait_for_the_disk_are_bounded_and_lost_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connector_events, "MAX_COLLECTED_EVENTS", 2)
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    for number in range(5):
        log.established(flow(number), 7, "")
    (batch,) = await sent(log)
    assert [event.flow for event in batch.events] == [flow(0).id, flow(1).id]
    assert "3 flow events are lost" in caplog.text


async def test_the_loop_goes_on_while_the_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(os, "fsync", slow)
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(), 7, "")
    spooling = asyncio.ensure_future(log.spool())
    async with asyncio.timeout(10):
        while not begun.is_set():
            await asyncio.sleep(0.005)  # this line runs at all: the loop is free
    assert not spooling.done(), "on disk means synced"
    go_on.set()
    await spooling


async def test_the_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    monkeypatch.setattr(Path, "glob", None)
    log.established(flow(), 7, "")
    (batch,) = await sent(log)
    await log.stored(batch.batch)
    assert await sent(log) == []


async def test_the_spool_is_bounded_and_drops_the_oldest_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connector_state, "MAX_SPOOLED_BATCHES", 3)
    state = ConnectorState(tmp_path)
    log = FlowEventLog(state, lambda: NOW)
    for number in range(5):
        log.established(flow(number), 7, "")
        await log.spool()
    kept = [event.flow for number in state.spooled() for event in state.batch(number)]
    assert kept == [flow(number).id for number in (2, 3, 4)]
    assert "the oldest is dropped" in caplog.text


async def test_the_spool_is_bounded_in_bytes_also_with_what_was_there_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(0), 7, "")
    await log.spool()
    (first,) = (tmp_path / "flow-events").glob("*.json")
    monkeypatch.setattr(connector_state, "MAX_SPOOLED_BYTES", 2 * first.stat().st_size)
    state = ConnectorState(tmp_path)
    restarted = FlowEventLog(state, lambda: NOW)
    for number in (1, 2, 3):
        restarted.established(flow(number), 7, "")
        await restarted.spool()
    kept = [event.flow for number in state.spooled() for event in state.batch(number)]
    assert kept == [flow(number).id for number in (2, 3)]
    assert "the oldest is dropped" in caplog.text


@pytest.mark.parametrize(
    ("failure", "event"),
    [
        (FlowFailure.NOT_GRANTED, "denied"),
        (FlowFailure.GRANT_EXPIRED, "denied"),
        (FlowFailure.ADDRESS_FORBIDDEN, "denied"),
        (FlowFailure.CUT, "denied"),
        (FlowFailure.REFUSED, "failed"),
        (FlowFailure.TIMED_OUT, "failed"),
        (FlowFailure.NAME_NOT_FOUND, "failed"),
    ],
)
async def test_a_refusal_is_denied_by_the_grant_or_failed_on_the_way(tmp_path: Path, failure: FlowFailure, event: str) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.refused(flow().id, principal(), tcp("db.internal", 5432), 7, failure)
    (batch,) = await sent(log)
    assert [(one.event, one.failure, one.resource) for one in batch.events] == [(event, failure.value, None)]


async def test_a_batch_that_is_not_readable_is_dropped_and_the_others_go_out(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(1), 7, "")
    await log.spool()
    log.established(flow(2), 7, "")
    await log.spool()
    broken, whole = sorted((tmp_path / "flow-events").glob("*.json"))
    broken.write_text("[{")
    restarted = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    assert [event.flow for batch in await sent(restarted) for event in batch.events] == [flow(2).id]
    assert not broken.exists()
    assert json.loads(whole.read_text())[0]["flow"] == flow(2).id


async def test_files_of_others_in_the_spool_do_not_stop_a_connector(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(), 7, "")
    await log.spool()
    (tmp_path / "flow-events" / "notes.json").write_text("[]")
    restarted = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    assert [event.flow for batch in await sent(restarted) for event in batch.events] == [flow().id]


async def test_a_disk_that_takes_nothing_loses_events_aloud_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(1), 7, "")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        await log.spool()
    assert "1 flow events are lost" in caplog.text
    assert list((tmp_path / "flow-events").iterdir()) == []
    log.established(flow(2), 7, "")
    assert [event.flow for batch in await sent(log) for event in batch.events] == [flow(2).id]
