"""Why a service account reaches an address, or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from klinket.controller.app import connectors, remote_networks, resources, service_keys
from klinket.controller.app.explain import explain
from klinket.controller.app.ports import Transaction
from klinket.domain.audit import Actor, ActorType
from klinket.domain.errors import InvalidInput
from klinket.domain.flow import Destination, TransportProtocol

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory

ADMIN = Actor(ActorType.API, id="1", name="first token")
TCP = TransportProtocol.TCP


@pytest.fixture
async def granted(inventory: Inventory) -> Inventory:
    def make(tx: Transaction) -> None:
        inventory.grant(tx)
        inventory.key = inventory.add_key(tx)  # type: ignore[attr-defined]

    await inventory.write(make)
    return inventory


async def first_refusal(inventory: Inventory, host: str = "db.internal", port: int = 5432, online: bool = True) -> str:
    """Return the text of the first condition that is not met, or "allowed"."""
    attached = {inventory.connector.id} if online else set()
    found = await inventory.read(lambda tx: explain(tx, inventory.ci, Destination(host, port, TCP), attached))
    refused = [step for step in found.steps if not step.ok]
    assert found.allowed is (not refused)
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
    assert await first_refusal(granted, port=22) == "'Database' does not open tcp port 22"


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
