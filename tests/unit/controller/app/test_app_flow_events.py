"""Flow events: kept once, with the names of that time, for as long and as many as configured."""

from __future__ import annotations

from typing import Any

import pytest

from klinket.controller.app import connectors, flow_events, relays, remote_networks, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowEventRow
from klinket.domain.errors import ProtocolError
from klinket.wire.control import FlowEvent
from tests.unit.controller.app.conftest import ADMIN, Inventory

DAYS = 24 * 3600


def seen(inventory: Inventory, kind: str = "established", **more: Any) -> FlowEvent:
    given: dict[str, Any] = {
        "event": kind, "flow": "flow-1", "time_ms": int(inventory.now * 1000) - 50, "session": "session-1",
        "service_account": inventory.ci.uuid, "key": "kid-1", "resource": inventory.database.id, "host": "db.internal",
        "port": 5432, "protocol": "tcp", **more,
    }  # fmt: skip
    return FlowEvent(**given)


async def keep(inventory: Inventory, *events: FlowEvent, batch: int = 1) -> list[FlowEventRow]:
    await inventory.write(lambda tx: flow_events.keep(tx, inventory.connector.id, batch, events))
    return await inventory.read(lambda tx: tx.flow_events.find())


async def forget(inventory: Inventory, **bounds: int) -> int:
    """Forget as housekeeping does; returns how many rounds it took."""
    given = {"days": 30, "max_events": 1_000_000, **bounds}
    rounds = 1
    while await inventory.write(lambda tx: flow_events.forget(tx, **given)):
        rounds += 1
    return rounds


async def test_an_event_has_the_names_of_its_time(inventory: Inventory) -> None:
    def prepare(tx: Transaction) -> int:
        inventory.add_key(tx, name="runner")
        tx.sessions.add(
            id="session-1", service_account_id=inventory.ci.id, service_key_id=1, jkt="j", hostname="h", client_version="1",
            address="192.0.2.9",
        )  # fmt: skip
        relay, _ = relays.create_or_replace(tx, ADMIN, name="relay-1", entropy=lambda count: b"r" * count)
        relays.report(tx, relay.id, relay.token_hash, address="[2001:db8::1]:8444", certificate_sha256="ab", source="192.0.2.7")
        return relay.id

    relay = await inventory.write(prepare)
    closed = seen(inventory, "closed", relay=relay, bytes_from_client=10, bytes_to_client=20, duration_ms=30)
    (row,) = await keep(inventory, closed)
    await inventory.write(lambda tx: service_accounts.rename(tx, ADMIN, inventory.ci, "renamed"))
    assert row.event == {
        "event_type": "closed_connection",
        "timestamp": closed.time_ms,
        "connection": {
            "id": "flow-1", "client_ip": "192.0.2.9", "resource_ip": None, "resource_port": 5432, "protocol": "tcp",
            "tunnel_path": "relayed", "tunnel_proto": "tcp", "rx": 20, "tx": 10, "duration": 30,
        },
        "connector": {"id": str(inventory.connector.id), "name": "office-1"},
        "device": {"id": "session-1"},
        "resource": {"id": str(inventory.database.id), "address": "db.internal", "applied_rule": "db.internal"},
        "remote_network": {"id": str(inventory.office.id), "name": "office"},
        "relays": [{"ip": "2001:db8::1", "name": "relay-1", "port": 8444}],
        "service_account": {"id": str(inventory.ci.id), "name": "ci", "key": "runner", "key_id": "1"},
        "status": "NORMAL",
    }  # fmt: skip
    assert (row.service_account_id, row.service_key_id) == (inventory.ci.id, 1)
    assert (row.resource_id, row.remote_network_id, row.failure) == (inventory.database.id, inventory.office.id, None)


@pytest.mark.parametrize(
    ("kind", "failure", "event_type", "status"),
    [
        ("established", None, "established_connection", "NORMAL"),
        ("closed", None, "closed_connection", "NORMAL"),
        ("closed", "cut", "closed_connection", "NORMAL"),
        ("failed", "name-not-found", "failed_to_connect", "DNS_ERROR"),
        ("failed", "refused", "failed_to_connect", "CONNECTION_FAILED"),
        ("denied", "not-granted", "denied_access", "CONNECTION_FAILED"),
    ],
)
async def test_only_ends_have_bytes_and_only_errors_have_a_message(
    inventory: Inventory, kind: str, failure: str | None, event_type: str, status: str
) -> None:
    (row,) = await keep(inventory, seen(inventory, kind, failure=failure))
    assert (row.event["event_type"], row.event["status"], row.failure) == (event_type, status, failure)
    assert ({"rx", "tx", "duration"} <= row.event["connection"].keys()) == (kind == "closed")
    expected = failure if kind in ("failed", "denied") else None
    assert row.event["connection"].get("error_message") == expected
    assert ("error_message" in row.event["connection"]) == (expected is not None)


async def test_what_is_gone_already_is_told_by_the_id_it_had(inventory: Inventory) -> None:
    (row,) = await keep(inventory, seen(inventory, service_account="gone", key="gone too", resource=None, relay=99))
    assert row.event["service_account"] == {"id": "gone", "name": None, "key": None, "key_id": "gone too"}
    assert row.event["resource"] == {"id": None, "address": "db.internal", "applied_rule": None}
    assert row.event["relays"] == []
    assert (row.service_account_id, row.service_key_id, row.resource_id) == (None, None, None)


async def test_a_batch_that_is_sent_again_is_stored_once(inventory: Inventory) -> None:
    batch = (seen(inventory), seen(inventory, "closed"))
    assert len(await keep(inventory, *batch, batch=7)) == 2
    assert len(await keep(inventory, *batch, batch=7)) == 2
    assert len(await keep(inventory, *batch, batch=8)) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"event": "other"}, {"protocol": "icmp9"}, {"port": 65_536}, {"port": -1}, {"bytes_to_client": -1},
        {"bytes_from_client": 1 << 60}, {"resource": 1 << 62}, {"resource": -1},
    ],
)  # fmt: skip
async def test_what_no_connector_sends_is_refused_as_a_whole(inventory: Inventory, wrong: dict[str, Any]) -> None:
    values = {"event": "closed", **wrong}
    with pytest.raises(ProtocolError):
        await keep(inventory, seen(inventory), seen(inventory, values.pop("event"), **values))
    assert await inventory.read(lambda tx: tx.flow_events.find()) == []


@pytest.mark.parametrize("batch", [-1, 1 << 53, 1 << 70])
async def test_a_batch_whose_number_is_none_is_refused(inventory: Inventory, batch: int) -> None:
    with pytest.raises(ProtocolError):
        await keep(inventory, seen(inventory), batch=batch)


async def test_a_flow_that_ended_before_it_began_lasted_no_time(inventory: Inventory) -> None:
    (row,) = await keep(inventory, seen(inventory, "closed", duration_ms=-5))  # refused, it would come again for ever
    assert row.event["connection"]["duration"] == 0


async def test_a_batch_has_a_limit(inventory: Inventory) -> None:
    events = [seen(inventory)] * flow_events.MAX_BATCH_EVENTS
    with pytest.raises(ProtocolError):
        await keep(inventory, *events, seen(inventory))
    assert len(await keep(inventory, *events)) == len(events)


async def test_a_connector_in_strange_hands_can_make_no_event_of_the_future_nor_a_huge_one(inventory: Inventory) -> None:
    long = "x" * 10_000
    (row,) = await keep(
        inventory,
        seen(inventory, time_ms=1 << 60, flow=long, host=long, session=long, service_account=long, key=long, failure=long),
    )
    assert row.time_ms == int(inventory.now * 1000)
    assert len(str(row.event)) < 2_000
    assert (await keep(inventory, seen(inventory, time_ms=-5), batch=2))[1].time_ms == 0


async def test_nothing_a_connector_tells_has_control_characters(inventory: Inventory) -> None:
    (row,) = await keep(inventory, seen(inventory, host="a\x1b]0;x\x07\nb", session="s\r", failure="cut\n", client_ip="1\x9b"))
    assert row.event["resource"]["address"] == "a?]0;x??b"
    assert row.event["device"]["id"] == "s?"


async def test_a_connector_tells_nothing_of_resources_of_another_remote_network(inventory: Inventory) -> None:
    def add(tx: Transaction) -> tuple[int, int]:
        network = remote_networks.create(tx, ADMIN, name="plant", location="ON_PREMISE", network_type="REGULAR", is_active=True)
        connector = connectors.create(tx, ADMIN, network, name="plant-1", has_status_notifications=True)
        return network.id, connector.id

    network, other = await inventory.write(add)
    await inventory.write(lambda tx: flow_events.keep(tx, other, 1, [seen(inventory)]))
    (row,) = await inventory.read(lambda tx: tx.flow_events.find())
    assert (row.resource_id, row.event["resource"]["id"], row.remote_network_id) == (None, None, network)
    assert [live.resource_id for live in await inventory.read(lambda tx: tx.live_flows.find())] == [None]


async def test_the_end_of_a_flow_names_its_resource_also_when_that_was_moved_away_meanwhile(inventory: Inventory) -> None:
    await keep(inventory, seen(inventory))

    def move(tx: Transaction) -> None:
        network = remote_networks.create(tx, ADMIN, name="plant", location="ON_PREMISE", network_type="REGULAR", is_active=True)
        tx.resources.change(inventory.database.id, remote_network_id=network.id)

    await inventory.write(move)
    _, closed, other = await keep(inventory, seen(inventory, "closed"), seen(inventory, flow="flow-2"), batch=2)
    assert (closed.resource_id, other.resource_id) == (inventory.database.id, None)


async def test_events_are_forgotten_by_age(inventory: Inventory) -> None:
    await keep(inventory, *[seen(inventory, flow=f"old-{number}") for number in range(40)], batch=1)
    inventory.now += 31 * DAYS
    await keep(inventory, *[seen(inventory, flow=f"new-{number}") for number in range(5)], batch=2)
    await forget(inventory)
    assert {row.flow[:3] for row in await inventory.read(lambda tx: tx.flow_events.find())} == {"new"}
    await forget(inventory, days=1)
    assert len(await inventory.read(lambda tx: tx.flow_events.find())) == 5


async def test_events_are_forgotten_by_number_the_oldest_first_in_bounded_steps(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_events, "FORGET_STEP", 10)
    await keep(inventory, *[seen(inventory, flow=f"flow-{number}") for number in range(60)])
    assert await forget(inventory, max_events=100) == 1
    assert await forget(inventory, max_events=25) == 5  # four rounds with something to do, and one without
    kept = [row.flow for row in await inventory.read(lambda tx: tx.flow_events.find())]
    assert kept == [f"flow-{number}" for number in range(35, 60)]


async def test_both_bounds_together_take_no_more_than_a_step(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_events, "FORGET_STEP", 10)
    await keep(inventory, *[seen(inventory) for _ in range(7)], batch=1)
    inventory.now += 31 * DAYS
    await keep(inventory, *[seen(inventory) for _ in range(20)], batch=2)
    assert await inventory.write(lambda tx: flow_events.forget(tx, days=30, max_events=1)) == 10
