"""The traffic log on stdout: one line for each event of a flow, only when it is asked for."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from klinket.connector.config import load
from klinket.connector.events import FlowEventLog
from klinket.connector.state import ConnectorState
from klinket.connector.traffic_log import TrafficLog
from klinket.domain.errors import InvalidInput
from klinket.domain.flow import FlowFailure
from klinket.wire.control import AccountLimits, ConnectorConfiguration
from klinket.wire.inventory import RelayEntry
from tests.unit.connector.conftest import DATABASE, NOW, principal, tcp
from tests.unit.connector.test_connector_state import flow


def configuration() -> ConnectorConfiguration:
    return ConnectorConfiguration(
        epoch=1, revision=1, network="acme", connector=3, remote_network=2, time_ms=0, client_authority="", grant_keys={},
        cut_keys={}, relays=[RelayEntry(id=7, address="[2001:db8::1]:8444", certificate_sha256="ab")],
        limits=AccountLimits(new_flows_per_second=1, new_flows_burst=1, max_flows=1), max_grant_seconds=300, renew_at_ms=0,
    )  # fmt: skip


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("ANALYTICS {") for line in lines)
    return [json.loads(line.removeprefix("ANALYTICS ")) for line in lines]


def test_each_event_is_a_line_in_the_shape_that_log_pipelines_know(tmp_path: Path) -> None:
    stream = io.StringIO()
    traffic_log = TrafficLog(stream)
    traffic_log.configure(configuration())
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW, traffic_log)
    log.established(flow(), 7, "10.0.0.5")
    log.closed(flow(), 7, "10.0.0.5", 20, 10, None)
    log.refused(flow(2).id, principal(), tcp("db.internal", 5432), 7, FlowFailure.TIMED_OUT, DATABASE)
    log.refused(flow(3).id, principal(), tcp("web.internal", 80), 7, FlowFailure.NOT_GRANTED)
    established, closed, failed, denied = entries(stream)
    assert [one["event_type"] for one in (established, closed, failed, denied)] == [
        "established_connection", "closed_connection", "failed_to_connect", "denied_access",
    ]  # fmt: skip
    assert established == {
        "event_type": "established_connection",
        "timestamp": round(NOW * 1000),
        "connection": {
            "id": flow().id, "client_ip": None, "resource_ip": "10.0.0.5", "resource_port": 5432, "protocol": "tcp",
            "tunnel_path": "relayed", "tunnel_proto": "tcp",
        },
        "connector": {"id": "3", "name": None},
        "device": {"id": principal().session},
        "resource": {"id": str(DATABASE.id), "address": "db.internal", "applied_rule": DATABASE.address.text},
        "remote_network": {"id": "2", "name": None},
        "relays": [{"ip": "2001:db8::1", "name": None, "port": 8444}],
        "service_account": {"id": principal().account, "name": None, "key": None, "key_id": principal().key},
    }  # fmt: skip
    assert closed["connection"]["id"] == established["connection"]["id"]
    assert (closed["connection"]["tx"], closed["connection"]["rx"], closed["connection"]["duration"]) == (10, 20, 0)
    assert failed["connection"]["error_message"] == "timed-out"
    assert failed["resource"]["id"] == str(DATABASE.id)
    assert (denied["connection"]["error_message"], denied["resource"]["id"]) == ("not-granted", None)


class Gone(io.StringIO):
    """A stream whose reader went away."""

    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


async def test_a_reader_that_went_away_costs_nothing_but_the_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = FlowEventLog(ConnectorState(tmp_path), lambda: NOW, TrafficLog(Gone()))
    with caplog.at_level(logging.WARNING):
        log.established(flow(), 7, "10.0.0.5")
    await log.spool()
    assert [len(batch.events) async for batch in log.unsent()] == [1]
    assert "traffic log" in caplog.text


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"TWINGATE_LOG_ANALYTICS": "v2"}, True),
        ({"KLINKET_LOG_ANALYTICS": "v2"}, True),
        ({"KLINKET_LOG_ANALYTICS": " v2 ", "TWINGATE_LOG_ANALYTICS": "v1"}, True),
        ({"TWINGATE_LOG_ANALYTICS": ""}, False),
        ({"TWINGATE_LOG_ANALYTICS": "v1"}, None),
    ],
)
def test_the_environment_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: bool | None
) -> None:
    for name in ("KLINKET_LOG_ANALYTICS", "TWINGATE_LOG_ANALYTICS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"KLINKET_ACCESS_TOKEN": "a", "KLINKET_REFRESH_TOKEN": "r", **environment}.items():
        monkeypatch.setenv(name, value)
    if wanted is None:
        with pytest.raises(InvalidInput) as raised:
            load(None, "https://acme.example.com", None, tmp_path)
        assert raised.value.field == "TWINGATE_LOG_ANALYTICS"
    else:
        assert load(None, "https://acme.example.com", None, tmp_path).logs_traffic is wanted
