"""What a connector keeps: its key, cuts, and flow events, bounded and over restarts."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from klinket.connector import events as connector_events
from klinket.connector import state as connector_state
from klinket.connector.core import Flow
from klinket.connector.events import FlowEventLog
from klinket.connector.state import ConnectorState
from klinket.domain.errors import InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import FlowId
from klinket.wire.signing import thumbprint
from tests.unit.connector.conftest import DATABASE, NOW, principal, tcp


def flow(number: int = 1) -> Flow:
    return Flow(FlowId(f"{number:032x}"), principal(), DATABASE, tcp("db.internal", 5432), NOW)


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


def test_events_are_sent_once_on_a_channel_and_forgotten_when_stored(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(), 7, "10.0.0.5")
    (batch,) = log.unsent()
    (event,) = batch.events
    assert (event.event, event.flow, event.relay, event.resource_ip) == ("established", flow().id, 7, "10.0.0.5")
    assert (event.host, event.port, event.protocol, event.resource) == ("db.internal", 5432, "tcp", DATABASE.id)
    assert log.unsent() == []
    log.channel_lost()
    assert [again.batch for again in log.unsent()] == [batch.batch]
    log.stored(batch.batch)
    log.channel_lost()
    assert log.unsent() == []


def test_events_survive_a_restart_and_numbers_only_grow(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.closed(flow(1), 7, 10, 20, None)
    log.spool()
    log.closed(flow(2), 7, 30, 40, FlowFailure.CUT)
    log.spool()
    restarted = FlowEventLog(ConnectorState(tmp_path), lambda: NOW - 3600)  # the clock went back, too
    first, second = restarted.unsent()
    assert first.batch < second.batch
    assert [event.flow for event in (*first.events, *second.events)] == [flow(1).id, flow(2).id]
    assert (second.events[0].bytes_to_client, second.events[0].bytes_from_client) == (30, 40)
    assert second.events[0].failure == "cut"
    restarted.established(flow(3), 7, "")
    (third,) = restarted.unsent()
    assert third.batch > second.batch


def test_a_lost_folder_gives_no_number_twice(tmp_path: Path) -> None:
    one = FlowEventLog(ConnectorState(tmp_path / "one"), lambda: NOW)
    one.established(flow(), 7, "")
    two = FlowEventLog(ConnectorState(tmp_path / "two"), lambda: NOW + 1)
    two.established(flow(), 7, "")
    assert one.unsent()[0].batch < two.unsent()[0].batch


def test_a_full_batch_goes_to_disk_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_events, "BATCH_EVENTS", 3)
    state = ConnectorState(tmp_path)
    log = FlowEventLog(state, lambda: NOW)
    for number in range(7):
        log.established(flow(number), 7, "")
    assert [len(state.batch(number)) for number in state.spooled()] == [3, 3]


def test_the_spool_is_bounded_and_drops_the_oldest_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connector_state, "MAX_SPOOLED_BATCHES", 3)
    state = ConnectorState(tmp_path)
    log = FlowEventLog(state, lambda: NOW)
    for number in range(5):
        log.established(flow(number), 7, "")
        log.spool()
    kept = [event.flow for number in state.spooled() for event in state.batch(number)]
    assert kept == [flow(number).id for number in (2, 3, 4)]
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
def test_a_refusal_is_denied_by_a_rule_or_failed_on_the_way(tmp_path: Path, failure: FlowFailure, event: str) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.refused(flow().id, principal(), tcp("db.internal", 5432), 7, failure)
    (batch,) = log.unsent()
    assert [(one.event, one.failure, one.resource) for one in batch.events] == [(event, failure.value, None)]


def test_a_batch_that_is_not_readable_is_dropped_and_the_others_go_out(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(1), 7, "")
    log.spool()
    log.established(flow(2), 7, "")
    log.spool()
    broken, whole = sorted((tmp_path / "flow-events").glob("*.json"))
    broken.write_text("[{")
    assert [event.flow for batch in log.unsent() for event in batch.events] == [flow(2).id]
    assert not broken.exists()
    assert json.loads(whole.read_text())[0]["flow"] == flow(2).id


def test_files_of_others_in_the_spool_do_not_stop_a_connector(tmp_path: Path) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(), 7, "")
    log.spool()
    (tmp_path / "flow-events" / "notes.json").write_text("[]")
    restarted = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    assert [event.flow for batch in restarted.unsent() for event in batch.events] == [flow().id]


def test_a_disk_that_takes_nothing_loses_events_aloud_and_leaves_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    log.established(flow(1), 7, "")

    def full(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        log.spool()
    assert "1 flow events are lost" in caplog.text
    assert list((tmp_path / "flow-events").iterdir()) == []
    log.established(flow(2), 7, "")
    assert [event.flow for batch in log.unsent() for event in batch.events] == [flow(2).id]
