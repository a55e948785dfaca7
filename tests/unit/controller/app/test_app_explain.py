"""Why a service account reaches an address, or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from klinket.controller.app import connectors, flow_events, remote_networks, resources, service_keys
from klinket.controller.app.explain import explain
from klinket.controller.app.ports import Transaction
from klinket.domain.audit import Actor, ActorType
from klinket.domain.errors import InvalidInput
from klinket.domain.explanation import StepName
from klinket.domain.flow import Destination, TransportProtocol
from klinket.wire.control import FlowEvent

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory

ADMIN = Actor(ActorType.API, id="1", name="first token")
TCP = TransportProtocol.TCP


@pytest.fixture
async def granted(inventory: Inventory) -> Inventory:
    def make(tx: Transaction) -> None:
        inventory.grant(tx)
        inventory.key = inventory.add_key(tx)  # type: ignore[attr-defined]

        tx.relays.add(name="frankfurt-1", token_hash="hash", address="192.0.2.9:8444")

    await inventory.write(make)
    return inventory


async def first_refusal(inventory: Inventory, host: str = "db.internal", port: int = 5432, online: bool = True) -> str:
    """Return the text of the first condition that is not met, or "allowed"."""
    attached = {inventory.connector.id: (1,)} if online else {}
    found = await inventory.read(lambda tx: explain(tx, inventory.ci, Destination(host, port, TCP), attached))
    refused = [step for step in found.steps if not step.ok]
    assert found.allowed is (not refused)
    assert [step.name for step in found.steps] == [name for name in StepName if name in {step.name for step in found.steps}]
    return refused[0].text if refused else "allowed"


async def test_what_is_granted_is_allowed(granted: Inventory) -> None:
    assert await first_refusal(granted) == "allowed"
    assert await first_refusal(granted, "DB.Internal.") == "allowed"


async def test_an_account_without_an_active_key(granted: Inventory) -> None:
    await granted.write(lambda tx: service_keys.revoke(tx, ADMIN, granted.key))  # type: ignore[attr-defined]
    assert await first_refusal(granted) == "'ci' has no active key"


async def test_a_host_that_no_resource_serves(granted: Inventory) -> None:
    assert await first_refusal(granted, "other.internal") == "no resource serves other.internal"


async def test_a_resource_that_is_not_granted(granted: Inventory) -> None:
    await granted.write(lambda tx: granted.add_resource(tx, "Web", address="web.internal"))
    assert await first_refusal(granted, "web.internal") == "resource 'Web' serves web.internal, but is not granted to 'ci'"


async def test_access_that_is_over(granted: Inventory) -> None:
    await granted.write(lambda tx: granted.grant(tx, expires_at_ms=tx.now_ms + 7_200_000))
    assert await first_refusal(granted) == "allowed"
    granted.now += 7_200
    assert "not granted" in await first_refusal(granted)


async def test_a_disabled_resource(granted: Inventory) -> None:
    await granted.write(lambda tx: resources.update(tx, ADMIN, granted.database, {"is_active": False}))
    assert await first_refusal(granted) == "resource 'Database' is disabled"


async def test_a_bypassed_resource(granted: Inventory) -> None:
    await granted.write(lambda tx: resources.update(tx, ADMIN, granted.database, {"routing_mode": "BYPASS_TWINGATE"}))
    assert "bypasses" in await first_refusal(granted)


async def test_an_inactive_remote_network(granted: Inventory) -> None:
    await granted.write(lambda tx: remote_networks.update(tx, ADMIN, granted.office, name=None, location=None, is_active=False))
    assert await first_refusal(granted) == "the remote network of 'Database' is not active"


async def test_a_port_that_is_not_open(granted: Inventory) -> None:
    ports = {"tcp": {"policy": "RESTRICTED", "ports": [{"start": 5432, "end": 5432}]}}
    await granted.write(lambda tx: resources.update(tx, ADMIN, granted.database, {"protocols": ports}))
    assert await first_refusal(granted) == "allowed"
    assert await first_refusal(granted, port=22) == "resource 'Database' does not open tcp port 22"


async def test_connectors_that_are_not_there(granted: Inventory) -> None:
    assert await first_refusal(granted, online=False) == "no connector of its remote network is online"
    await granted.write(lambda tx: connectors.delete(tx, ADMIN, granted.connector))
    assert await first_refusal(granted) == "its remote network has no connector"


async def test_a_connector_that_is_too_old(granted: Inventory) -> None:
    await granted.write(lambda tx: granted.add_connector(tx, "old", version="1.0.29"))
    assert "old (1.0.29)" in await first_refusal(granted)


async def test_a_host_that_is_none(granted: Inventory) -> None:
    with pytest.raises(InvalidInput):
        await first_refusal(granted, "a b")


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("Web.Internal.", "web.internal"), ("*.apps.internal", "a.apps.internal"), ("web-?.internal", "web-1.internal"),
        ("10.9.0.0/16", "10.9.1.2"), ("10.9.1.2/32", "10.9.1.2"), ("fd00::/8", "fd00::1"), ("fd00:0:0::0001", "fd00::1"),
        ("bücher.internal", "xn--bcher-kva.internal"),
    ],
)  # fmt: skip
async def test_a_resource_is_found_however_its_address_is_written(granted: Inventory, address: str, host: str) -> None:
    await granted.write(lambda tx: granted.add_resource(tx, "Web", address=address))
    assert "'Web' serves" in await first_refusal(granted, host)


async def test_connectors_that_are_at_no_relay(granted: Inventory) -> None:
    attached = {granted.connector.id: ()}
    found = await granted.read(lambda tx: explain(tx, granted.ci, Destination("db.internal", 5432, TCP), attached))
    (path,) = [step for step in found.steps if step.name is StepName.PATH]
    assert (path.ok, path.code, found.allowed) == (False, "no-connector", False)
    listening = {granted.connector.id: ("192.0.2.7:8445",)}
    found = await granted.read(lambda tx: explain(tx, granted.ci, Destination("db.internal", 5432, TCP), attached, listening))
    (path,) = [step for step in found.steps if step.name is StepName.PATH]
    assert (path.ok, path.evidence, found.allowed) == (True, ("connector office-1 listens at 192.0.2.7:8445",), True)


async def test_resources_that_lost_by_precedence_are_named(granted: Inventory) -> None:
    def more(tx: Transaction) -> None:
        granted.grant(tx, granted.add_resource(tx, "All of it", address="*.internal"))

    await granted.write(more)
    attached = {granted.connector.id: (1,)}
    found = await granted.read(lambda tx: explain(tx, granted.ci, Destination("db.internal", 5432, TCP), attached))
    (step,) = [step for step in found.steps if step.name is StepName.RESOURCE]
    assert step.text == "resource 'Database' serves db.internal by its address db.internal"
    assert step.evidence == (
        "resource 'All of it' (pattern *.internal) lost: the address itself comes before ranges and patterns",
    )


def event(inventory: Inventory, kind: str, *, port: int = 5432, failure: str | None = None, ip: str | None = None) -> FlowEvent:
    return FlowEvent(
        event=kind, flow="f1", time_ms=round(inventory.now * 1000), session="s", service_account=inventory.ci.uuid, key="kid-1",
        resource=inventory.database.id, host="db.internal", port=port, protocol="tcp", resource_ip=ip, failure=failure,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "failure", "ip", "told"),
    [
        (
            "closed",
            None,
            "10.0.0.7",
            {
                "dns": (True, "the connector knew db.internal as 10.0.0.7"),
                "dial": (True, "the last connection to tcp db.internal:5432 was accepted"),
            },
        ),
        (
            "failed",
            "refused",
            None,
            {
                "dns": (True, "the connector knew db.internal"),
                "dial": (False, "the last connection to tcp db.internal:5432 ended with refused"),
            },
        ),
        ("failed", "name-not-found", None, {"dns": (False, "the last look-up of db.internal ended with name-not-found")}),
        ("denied", "not-granted", None, {}),
    ],
)
async def test_what_a_connector_saw_last_is_told_and_forbids_nothing(
    granted: Inventory, kind: str, failure: str | None, ip: str | None, told: dict[str, tuple[bool, str]]
) -> None:
    events = [event(granted, kind, failure=failure, ip=ip), event(granted, "failed", port=1, failure="timed-out")]
    await granted.write(lambda tx: flow_events.keep(tx, granted.connector.id, 1, events))
    attached = {granted.connector.id: (1,)}
    found = await granted.read(lambda tx: explain(tx, granted.ci, Destination("DB.internal", 5432, TCP), attached))
    assert found.allowed
    last = {step.name.value: (step.ok, step.text) for step in found.steps if step.name in (StepName.DNS, StepName.DIAL)}
    assert last == told
