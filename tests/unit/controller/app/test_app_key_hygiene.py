"""Last use, rotation with an overlap, and warnings before an expiry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from klinket.controller.app import key_hygiene, service_keys
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceKeyRow
from klinket.domain.audit import Actor, ActorType, AuditAction
from klinket.domain.errors import Conflict, InvalidInput, LifecycleError
from klinket.domain.identifiers import Kid
from klinket.domain.service_key import SECONDS_PER_DAY, KeyState

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory

ADMIN = Actor(ActorType.API, id="1", name="first token")


def rotate(tx: Transaction, old: ServiceKeyRow, **changed: Any) -> ServiceKeyRow:
    settings = {"days": 90, "overlap_hours": 24, "name": None, "kid": Kid("new"), "public_key": "PEM", **changed}
    return key_hygiene.rotate(tx, ADMIN, old, **settings)


def use(tx: Transaction, key: ServiceKeyRow) -> None:
    key_hygiene.used(tx, key, hostname="runner-1", address="192.0.2.7", client_version="0.1.0")


async def state(inventory: Inventory, id: int) -> KeyState:
    def look(tx: Transaction) -> KeyState:
        row = tx.service_keys.get(id)
        assert row is not None
        return row.state(tx.now_ms)

    return await inventory.read(look)


async def warnings(inventory: Inventory) -> list[tuple[str, int]]:
    events = await inventory.read(lambda tx: tx.audit.find(action=AuditAction.WARN.value))
    return [(event.targets[0]["name"], event.detail["withinDays"]) for event in events]


async def test_a_login_is_noted_and_changes_nothing_that_admins_set(inventory: Inventory) -> None:
    key = await inventory.write(inventory.add_key)
    inventory.now += 60
    await inventory.write(lambda tx: use(tx, key))
    row = await inventory.read(lambda tx: tx.service_keys.get(key.id))
    assert row is not None
    assert row.last_used_ms == round(inventory.now * 1000)
    assert row.last_used_by == {"hostname": "runner-1", "address": "192.0.2.7", "clientVersion": "0.1.0"}
    assert row.updated_at_ms == key.updated_at_ms


async def test_a_rotated_key_ends_at_the_first_use_of_the_new_one(inventory: Inventory) -> None:
    old = await inventory.write(lambda tx: inventory.add_key(tx, name="runner"))
    new = await inventory.write(lambda tx: rotate(tx, old))
    assert new.name == "runner"
    assert await state(inventory, old.id) is KeyState.ACTIVE
    with inventory.cuts() as cuts:
        await inventory.write(lambda tx: use(tx, new))
    assert await state(inventory, old.id) is KeyState.REVOKED
    assert [str(cut.scope) for cut in cuts] == [f"key {old.kid}"]
    assert await state(inventory, new.id) is KeyState.ACTIVE


async def test_a_rotated_key_ends_with_the_overlap_when_the_new_one_is_never_used(inventory: Inventory) -> None:
    old = await inventory.write(inventory.add_key)
    await inventory.write(lambda tx: rotate(tx, old, overlap_hours=2))
    inventory.now += 2 * 3600 - 1
    assert await inventory.write(key_hygiene.end_overlaps) == 0
    assert await state(inventory, old.id) is KeyState.ACTIVE
    inventory.now += 1
    assert await inventory.write(key_hygiene.end_overlaps) == 1
    assert await state(inventory, old.id) is KeyState.REVOKED
    assert await inventory.write(key_hygiene.end_overlaps) == 0


async def test_without_an_overlap_the_old_key_ends_at_once(inventory: Inventory) -> None:
    old = await inventory.write(inventory.add_key)
    await inventory.write(lambda tx: rotate(tx, old, overlap_hours=0))
    assert await state(inventory, old.id) is KeyState.REVOKED


async def test_what_was_revoked_by_hand_during_the_overlap_stays_as_it_is(inventory: Inventory) -> None:
    old = await inventory.write(inventory.add_key)
    new = await inventory.write(lambda tx: rotate(tx, old))
    revoked = await inventory.write(lambda tx: service_keys.revoke(tx, ADMIN, old))
    inventory.now += 10
    await inventory.write(lambda tx: use(tx, new))
    row = await inventory.read(lambda tx: tx.service_keys.get(old.id))
    assert row is not None
    assert row.revoked_at_ms == revoked.revoked_at_ms


async def test_what_was_deleted_during_the_overlap_is_no_obstacle(inventory: Inventory) -> None:
    old = await inventory.write(inventory.add_key)
    new = await inventory.write(lambda tx: rotate(tx, old))
    await inventory.write(lambda tx: service_keys.delete(tx, ADMIN, service_keys.revoke(tx, ADMIN, old)))
    row = await inventory.read(lambda tx: tx.service_keys.get(new.id))
    assert row is not None
    assert row.replaces_key_id is None
    inventory.now += 25 * 3600
    await inventory.write(key_hygiene.end_overlaps)
    assert await state(inventory, new.id) is KeyState.ACTIVE


async def test_a_key_is_replaced_by_one_key_at_a_time(inventory: Inventory) -> None:
    old = await inventory.write(inventory.add_key)
    await inventory.write(lambda tx: rotate(tx, old))
    with pytest.raises(Conflict, match="is being replaced already"):
        await inventory.write(lambda tx: rotate(tx, old, kid=Kid("third")))


async def test_only_an_active_key_can_be_rotated(inventory: Inventory) -> None:
    old = await inventory.write(inventory.add_key)
    revoked = await inventory.write(lambda tx: service_keys.revoke(tx, ADMIN, old))
    with pytest.raises(LifecycleError, match="only an active key"):
        await inventory.write(lambda tx: rotate(tx, revoked))


@pytest.mark.parametrize("hours", [-1, 721])
async def test_an_overlap_has_bounds(inventory: Inventory, hours: int) -> None:
    old = await inventory.write(inventory.add_key)
    with pytest.raises(InvalidInput, match="overlapHours is 0 to 720"):
        await inventory.write(lambda tx: rotate(tx, old, overlap_hours=hours))
    assert len(await inventory.read(lambda tx: tx.service_keys.find())) == 1


async def test_each_warning_is_given_once_30_7_and_1_days_before(inventory: Inventory) -> None:
    await inventory.write(lambda tx: inventory.add_key(tx, days=365, name="year"))
    for days_left, given in ((31, []), (30, [30]), (29, []), (7, [7]), (6, []), (0.9, [1]), (0.1, []), (-1, [])):
        inventory.now = 1_800_000_000.0 + (365 - days_left) * SECONDS_PER_DAY
        before = len(await warnings(inventory))
        warned = await inventory.write(key_hygiene.warn_of_expiry)
        assert [key.warned_days for key in warned] == given
        assert [days for _, days in (await warnings(inventory))[before:]] == given


async def test_after_a_long_pause_only_the_nearest_warning_is_given(inventory: Inventory) -> None:
    await inventory.write(lambda tx: inventory.add_key(tx, days=365, name="year"))
    inventory.now += 364.5 * SECONDS_PER_DAY
    await inventory.write(key_hygiene.warn_of_expiry)
    assert await warnings(inventory) == [("year", 1)]


async def test_keys_are_not_warned_of_that_were_made_to_end_soon_or_end_otherwise(inventory: Inventory) -> None:
    def make(tx: Transaction) -> None:
        inventory.add_key(tx, days=1, name="day")
        inventory.add_key(tx, days=7, name="week")
        inventory.add_key(tx, days=0, name="never")
        service_keys.revoke(tx, ADMIN, inventory.add_key(tx, days=60, name="revoked"))

    await inventory.write(make)
    await inventory.write(key_hygiene.warn_of_expiry)
    assert await warnings(inventory) == []
    inventory.now += 6.5 * SECONDS_PER_DAY
    await inventory.write(key_hygiene.warn_of_expiry)
    assert await warnings(inventory) == [("week", 1)]


async def test_expiring_keys_are_counted_for_the_metrics(inventory: Inventory) -> None:
    def make(tx: Transaction) -> None:
        for days in (1, 5, 7, 20, 300, 0):
            inventory.add_key(tx, days=days)

    await inventory.write(make)
    assert await inventory.read(key_hygiene.expiring_counts) == {30: 4, 7: 3, 1: 1}
