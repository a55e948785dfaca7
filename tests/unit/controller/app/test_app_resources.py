"""Resources and access: what may be stored, and which change ends what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from klinket.controller.app import access, cuts, remote_networks, resources
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ResourceRow
from klinket.domain.audit import Actor, ActorType
from klinket.domain.cut import Cut, CutScope
from klinket.domain.errors import Conflict, ConnectorTooOld, InvalidInput
from klinket.domain.identifiers import ResourceId, ServiceAccountUuid

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory

ADMIN = Actor(ActorType.API, id="1", name="first token")
HOUR_MS = 3_600_000


def restricted(*spans: tuple[int, int]) -> dict[str, Any]:
    return {"policy": "RESTRICTED", "ports": [{"start": first, "end": last} for first, last in spans]}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"address": "10.0.0.1/24"}, "Invalid IP or FQDN"),
        ({"address": ""}, "Invalid IP or FQDN"),
        ({"alias": "database"}, "Alias must be a valid DNS"),
        ({"alias": ""}, "Alias must be a valid DNS"),
        ({"name": " "}, "name must not be empty"),
        ({"protocols": {"tcp": restricted((0, 0))}}, "ports are 1 to 65535"),
        ({"protocols": {"tcp": restricted((70_000, 70_000))}}, "ports are 1 to 65535"),
        ({"protocols": {"udp": restricted((9, 5))}}, "the first port is above the last"),
        ({"protocols": {"tcp": {"policy": "ALLOW_ALL", "ports": [{"start": 1, "end": 2}]}}}, "ALLOW_ALL takes no ports"),
        ({"address": "*.internal", "is_browser_shortcut_enabled": True}, "Resources with a CIDR range or wildcard"),
        ({"address": "10.0.0.0/8", "routing_mode": "BYPASS_TWINGATE"}, "plain name or IP"),
        ({"routing_mode": "BYPASS_TWINGATE", "protocols": {"tcp": restricted((22, 22))}}, "cannot restrict ports"),
        ({"tags": [{"key": "tgx", "value": "1"}]}, "may not start with 'tg'"),
        ({"tags": [{"key": "a", "value": "1"}, {"key": " a ", "value": "2"}]}, "must be unique"),
        ({"tags": [{"key": "a", "value": ""}]}, "values 1 to 256"),
        ({"tags": [{"key": str(n), "value": "1"} for n in range(65)]}, "the limit is 64"),
    ],
)
async def test_a_resource_that_breaks_a_rule_is_refused(inventory: Inventory, values: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        await inventory.write(lambda tx: inventory.add_resource(tx, **{"name": "Bad", **values}))
    assert await inventory.read(lambda tx: [row.name for row in tx.resources.find()]) == ["Database"]


async def test_what_was_given_reads_back_unchanged(inventory: Inventory) -> None:
    protocols = {"allowIcmp": False, "tcp": restricted((8000, 8999), (22, 22)), "udp": restricted()}
    row = await inventory.write(
        lambda tx: inventory.add_resource(
            tx, "Web", address="*.Web.Internal", protocols=protocols, tags=[{"key": " k ", "value": "v "}]
        )
    )
    assert (row.address, row.protocols, row.tags) == ("*.Web.Internal", protocols, [{"key": "k", "value": "v"}])
    everything = {"policy": "ALLOW_ALL", "ports": []}
    assert inventory.database.protocols == {"allowIcmp": True, "tcp": everything, "udp": everything}


async def test_a_resource_needs_an_existing_network(inventory: Inventory) -> None:
    with pytest.raises(Conflict):
        await inventory.write(lambda tx: inventory.add_resource(tx, "Nowhere", remote_network_id=999))


async def changed(inventory: Inventory, before: dict[str, Any], changes: dict[str, Any]) -> tuple[ResourceRow, list[Cut]]:
    row = await inventory.write(lambda tx: inventory.add_resource(tx, "Changing", **before))
    with inventory.cuts() as ordered:
        row = await inventory.write(lambda tx: resources.update(tx, ADMIN, row, changes))
    return row, ordered


WEB = {"tcp": restricted((80, 80), (443, 443))}


@pytest.mark.parametrize(
    ("before", "changes"),
    [
        ({}, {"name": "Renamed"}),
        ({}, {"is_visible": False}),
        ({}, {"alias": "db.acme.internal"}),
        ({"routing_mode": "BYPASS_TWINGATE"}, {"address": "other.internal"}),
        ({"protocols": WEB}, {"protocols": {"tcp": restricted((1, 1000))}}),
        ({"protocols": WEB}, {"protocols": {"tcp": restricted((443, 443), (80, 80))}}),
        ({"address": "10.0.0.0/24"}, {"address": "10.0.0.0/16"}),
        ({"address": "10.0.0.7"}, {"address": "10.0.0.0/24"}),
        ({"address": "a.internal"}, {"address": "*.internal"}),
        ({"address": "A.internal"}, {"address": "a.internal"}),
    ],
)
async def test_a_change_that_takes_nothing_away_disturbs_no_flow(
    inventory: Inventory, before: dict[str, Any], changes: dict[str, Any]
) -> None:
    _, ordered = await changed(inventory, before, changes)
    assert ordered == []


@pytest.mark.parametrize(
    ("before", "changes", "something_remains"),
    [
        ({}, {"is_active": False}, False),
        ({}, {"address": "other.internal"}, False),
        ({}, {"routing_mode": "BYPASS_TWINGATE"}, False),
        ({"address": "10.0.0.0/16"}, {"address": "10.0.0.0/24"}, False),
        ({"address": "*.internal"}, {"address": "a.internal"}, False),
        ({}, {"protocols": WEB}, True),
        ({"protocols": WEB}, {"protocols": {"tcp": restricted((80, 80))}}, True),
        ({"alias": "db.acme.internal"}, {"alias": None}, True),
        ({"alias": "db.acme.internal"}, {"alias": "other.acme.internal"}, True),
    ],
)
async def test_a_change_that_takes_something_away_orders_a_cut_that_carries_what_remains(
    inventory: Inventory, before: dict[str, Any], changes: dict[str, Any], something_remains: bool
) -> None:
    row, [cut] = await changed(inventory, before, changes)
    assert cut.scope == CutScope.of_resource(ResourceId(row.id))
    assert cut.narrowed == (resources.to_domain(row) if something_remains else None)
    assert inventory.heard[-1].cuts[0].connectors == (inventory.connector.id,)


async def test_a_resource_that_moves_is_cut_where_it_was(inventory: Inventory) -> None:
    def second(tx: Transaction) -> int:
        return remote_networks.create(tx, ADMIN, name="lab", location="AWS", network_type="REGULAR", is_active=True).id

    lab = await inventory.write(second)
    await changed(inventory, {}, {"remote_network_id": lab})
    assert inventory.heard[-1].cuts[0].connectors == (inventory.connector.id,)


async def test_deleting_a_resource_takes_its_access_and_orders_a_cut(inventory: Inventory) -> None:
    await inventory.write(inventory.grant)
    with inventory.cuts() as ordered:
        await inventory.write(lambda tx: resources.delete(tx, ADMIN, inventory.database))
    assert [cut.scope for cut in ordered] == [CutScope.of_resource(ResourceId(inventory.database.id))]
    assert await inventory.read(lambda tx: tx.access.find()) == []


async def test_disabling_a_network_cuts_its_resources(inventory: Inventory) -> None:
    with inventory.cuts() as ordered:
        office = await inventory.write(
            lambda tx: remote_networks.update(tx, ADMIN, inventory.office, name=None, location=None, is_active=False)
        )
        await inventory.write(lambda tx: remote_networks.update(tx, ADMIN, office, name="hq", location=None, is_active=False))
    assert [cut.scope for cut in ordered] == [CutScope.of_resource(ResourceId(inventory.database.id))]


async def test_a_network_with_something_in_it_is_not_deleted(inventory: Inventory) -> None:
    with pytest.raises(Conflict, match="1 connectors and 1 resources"):
        await inventory.write(lambda tx: remote_networks.delete(tx, ADMIN, inventory.office))


async def test_network_names_are_unique(inventory: Inventory) -> None:
    with pytest.raises(Conflict, match="exists already"):
        await inventory.write(
            lambda tx: remote_networks.create(tx, ADMIN, name="office", location="AWS", network_type="REGULAR", is_active=True)
        )


# ---- access


async def test_granting_twice_changes_nothing_and_taking_away_what_is_not_there_is_no_error(inventory: Inventory) -> None:
    await inventory.write(inventory.grant)
    head = await inventory.read(lambda tx: tx.head())
    with inventory.cuts() as ordered:
        await inventory.write(inventory.grant)
        assert await inventory.read(lambda tx: tx.head()) == head
        await inventory.write(lambda tx: access.revoke(tx, ADMIN, inventory.database, inventory.ci))
        await inventory.write(lambda tx: access.revoke(tx, ADMIN, inventory.database, inventory.ci))
    scope = CutScope.of_access(ServiceAccountUuid(inventory.ci.uuid), ResourceId(inventory.database.id))
    assert [(cut.scope, cut.narrowed) for cut in ordered] == [(scope, None)]


@pytest.mark.parametrize("version", ["1.0.29", "0.99.0", "nonsense"])
async def test_a_connector_that_reported_an_old_version_prevents_access(inventory: Inventory, version: str) -> None:
    await inventory.write(lambda tx: inventory.add_connector(tx, "old-one", version))
    with pytest.raises(ConnectorTooOld, match="old-one") as refused:
        await inventory.write(inventory.grant)
    assert "upgrade" in refused.value.hint
    assert await inventory.read(lambda tx: tx.access.find()) == []


async def test_connectors_of_a_good_version_and_silent_ones_do_not_prevent_access(inventory: Inventory) -> None:
    await inventory.write(lambda tx: inventory.add_connector(tx, "new-one", "1.0.30"))
    await inventory.write(inventory.grant)
    assert len(await inventory.read(lambda tx: tx.access.find())) == 1


async def test_a_granted_resource_does_not_move_to_a_network_with_an_old_connector(inventory: Inventory) -> None:
    def second(tx: Transaction) -> int:
        lab = remote_networks.create(tx, ADMIN, name="lab", location="AWS", network_type="REGULAR", is_active=True)
        office, inventory.office = inventory.office, lab
        inventory.add_connector(tx, "lab-1", "1.0.0")
        inventory.office = office
        inventory.grant(tx)
        return lab.id

    lab = await inventory.write(second)
    with pytest.raises(ConnectorTooOld, match="lab-1"):
        await inventory.write(lambda tx: resources.update(tx, ADMIN, inventory.database, {"remote_network_id": lab}))


@pytest.mark.parametrize(
    ("ahead_ms", "allowed"),
    [(HOUR_MS, True), (365 * 24 * HOUR_MS, True), (HOUR_MS // 2, False), (400 * 24 * HOUR_MS, False), (-1, False)],
)
async def test_access_ends_by_itself_an_hour_to_a_year_ahead(inventory: Inventory, ahead_ms: int, allowed: bool) -> None:
    at = round(inventory.now * 1000) + ahead_ms
    if not allowed:
        with pytest.raises(InvalidInput, match="1 hour to 1 year"):
            await inventory.write(lambda tx: inventory.grant(tx, expires_at_ms=at))
        return
    await inventory.write(lambda tx: inventory.grant(tx, expires_at_ms=at))
    inventory.now = at / 1000 - 1
    assert await inventory.write(access.end_expired) == 0
    inventory.now = at / 1000
    with inventory.cuts() as ordered:
        assert await inventory.write(access.end_expired) == 1
        assert await inventory.write(access.end_expired) == 0
    scope = CutScope.of_access(ServiceAccountUuid(inventory.ci.uuid), ResourceId(inventory.database.id))
    assert [cut.scope for cut in ordered] == [scope]
    assert await inventory.read(lambda tx: tx.access.find()) == []
    last = (await inventory.read(lambda tx: tx.audit.newest(2)))[-1]
    assert last.actor["type"] == "System"


# ---- receipts


async def test_a_receipt_is_pending_until_its_connector_answers_and_the_first_answer_counts(inventory: Inventory) -> None:
    def prepare(tx: Transaction) -> int:
        inventory.add_connector(tx, "office-2")
        return cuts.order(tx, CutScope.of_resource(ResourceId(1)), cuts.FlowFailure.CUT, ADMIN).id

    number = await inventory.write(prepare)

    def answer(took_ms: float) -> Any:
        return lambda tx: cuts.answer(tx, number, inventory.connector.id, stopped_at_ms=5, took_ms=took_ms, flows=[])

    await inventory.write(answer(1.5))
    await inventory.write(answer(99.0))
    shown = await inventory.read(lambda tx: cuts.receipt(tx, number))
    found = {receipt["connector"]: (receipt["state"], receipt["took_ms"]) for receipt in shown["receipts"]}
    assert found == {"office-1": ("answered", 1.5), "office-2": ("pending", None)}
    assert [cut.id for cut in await inventory.read(cuts.in_force)] == [number]


async def test_a_cut_whose_change_fails_is_not_announced(inventory: Inventory) -> None:
    def fails(tx: Transaction) -> None:
        resources.delete(tx, ADMIN, inventory.database)
        raise ZeroDivisionError

    heard = len(inventory.heard)
    with pytest.raises(ZeroDivisionError):
        await inventory.write(fails)
    assert len(inventory.heard) == heard
    assert await inventory.read(lambda tx: tx.cuts.find()) == []
