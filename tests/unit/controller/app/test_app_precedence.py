"""Which of two resources serves what both cover."""

from __future__ import annotations

import pytest

from klinket.controller.app import resources
from klinket.controller.app.ports import Transaction
from klinket.controller.app.precedence import MAX_NAMED, Overlaps, Why, overlaps
from klinket.domain.resource import ResourceIndex
from tests.unit.controller.app.conftest import ADMIN, Inventory


async def looked_up(inventory: Inventory, *addresses: str | tuple[str, str]) -> Overlaps:
    """Return what overlaps the first of these."""

    def add(tx: Transaction) -> Overlaps:
        rows = []
        for number, given in enumerate(addresses):
            address, alias = given if isinstance(given, tuple) else (given, None)
            rows.append(inventory.add_resource(tx, f"r{number}", address=address, alias=alias))
        return overlaps(tx, rows[0])

    return await inventory.write(add)


@pytest.mark.parametrize(("mine", "other", "wins", "why"), [
    ("10.0.0.0/16", "10.0.3.0/24", True, Why.MORE_SPECIFIC),
    ("10.0.3.7", "10.0.3.0/24", False, Why.MORE_SPECIFIC),
    ("*.example", "db-?.example", True, Why.MORE_SPECIFIC),
    ("web.example", "web.example", False, Why.OLDER),
    ("10.1.0.0/24", "10.1.0.0/24", False, Why.OLDER),
    ("web.example", ("10.9.9.9", "web.example"), True, Why.ALIAS),
    ("*.example", ("10.9.9.9", "web.example"), True, Why.ALIAS),
    (("10.9.9.9", "web.example"), "*.example", False, Why.ALIAS),
])  # fmt: skip
async def test_who_wins_and_why(
    inventory: Inventory, mine: str | tuple[str, str], other: str | tuple[str, str], wins: bool, why: Why
) -> None:
    found = await looked_up(inventory, mine, other)
    assert [(one.name, one.wins, one.why) for one in found.named] == [("r1", wins, why)]


async def test_the_decision_is_that_of_connectors(inventory: Inventory) -> None:
    hosts = {"10.0.3.7": ("10.0.0.0/16", "10.0.3.0/24", "10.0.3.7"), "a.b.example": ("*.example", "*.b.example", "a.b.example")}
    for host, addresses in hosts.items():
        for order in (addresses, addresses[::-1]):
            found = await looked_up(inventory, *order)
            rows = await inventory.read(lambda tx: [row for row in tx.resources.find() if row.name.startswith("r")])
            served = ResourceIndex(resources.to_domain(row) for row in rows).lookup(host)
            assert served is not None
            winners = [one.id for one in found.named if one.wins]
            assert (served.id in winners) if winners else (served.name == "r0")
            await inventory.write(lambda tx, rows=rows: [resources.delete(tx, ADMIN, row) for row in rows])


async def test_what_has_nothing_in_common_or_is_disabled_is_left_out(inventory: Inventory) -> None:
    def add(tx: Transaction) -> Overlaps:
        mine = inventory.add_resource(tx, "mine", address="10.0.0.0/16")
        resources.update(tx, ADMIN, inventory.add_resource(tx, "off", address="10.0.0.1"), {"is_active": False})
        inventory.add_resource(tx, "elsewhere", address="10.1.0.1")
        return overlaps(tx, mine)

    assert await inventory.write(add) == Overlaps((), 0, True)


async def test_many_are_counted_and_the_first_named(inventory: Inventory) -> None:
    found = await looked_up(inventory, "10.0.0.0/16", *(f"10.0.0.{number}" for number in range(1, 30)))
    assert (len(found.named), found.total, found.is_complete) == (MAX_NAMED, 29, True)
