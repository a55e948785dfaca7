"""Service keys as stored objects: the lifecycle, its refusals, its cuts and its audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from klinket.controller.app import cuts, service_accounts, service_keys, sessions
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceKeyRow
from klinket.domain.audit import Actor, ActorType
from klinket.domain.cut import CutScope
from klinket.domain.errors import InvalidInput, LifecycleError
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import Kid, ServiceAccountUuid
from klinket.domain.service_key import INVALID_EXPIRATION, KeyState

if TYPE_CHECKING:
    from tests.unit.controller.app.conftest import Inventory

ADMIN = Actor(ActorType.API, id="1", name="first token")
DAY_MS = 24 * 3_600_000


def add_session(tx: Transaction, key: ServiceKeyRow, id: str = "s" * 22) -> None:
    tx.sessions.add(
        id=id,
        service_account_id=key.service_account_id,
        service_key_id=key.id,
        jkt="j",
        hostname="",
        client_version="",
        address="",
    )


async def test_an_expiry_is_set_at_creation_in_whole_days_and_0_is_never(inventory: Inventory) -> None:
    def change(tx: Transaction) -> tuple[ServiceKeyRow, ServiceKeyRow]:
        return inventory.add_key(tx, days=0), inventory.add_key(tx, days=365)

    never, year = await inventory.write(change)
    assert never.expires_at_ms is None
    assert year.expires_at_ms == year.created_at_ms + 365 * DAY_MS


@pytest.mark.parametrize("days", [-1, 366, 10_000])
async def test_other_expiries_are_refused_in_the_words_api_clients_know(inventory: Inventory, days: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        await inventory.write(lambda tx: inventory.add_key(tx, days=days))
    assert refused.value.message == INVALID_EXPIRATION == "Invalid key expiration time. A value from 0-365 is required."
    assert await inventory.read(lambda tx: tx.service_keys.find()) == []


async def test_a_key_without_a_name_gets_one(inventory: Inventory) -> None:
    key = await inventory.write(inventory.add_key)
    assert key.name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 256])
async def test_a_bad_name_is_refused(inventory: Inventory, name: str) -> None:
    with pytest.raises(InvalidInput):
        await inventory.write(lambda tx: inventory.add_key(tx, name=name))


async def in_state(inventory: Inventory, state: KeyState) -> ServiceKeyRow:
    key = await inventory.write(lambda tx: inventory.add_key(tx, days=1, name="runner"))
    if state is KeyState.REVOKED:
        key = await inventory.write(lambda tx: service_keys.revoke(tx, ADMIN, key))
    if state is KeyState.EXPIRED:
        inventory.now += 24 * 3600
    assert await inventory.read(lambda tx: key.state(tx.now_ms)) is state
    return key


RENAME: Callable[[Transaction, ServiceKeyRow], object] = lambda tx, key: service_keys.rename(tx, ADMIN, key, "other")  # noqa: E731
REVOKE: Callable[[Transaction, ServiceKeyRow], object] = lambda tx, key: service_keys.revoke(tx, ADMIN, key)  # noqa: E731
DELETE: Callable[[Transaction, ServiceKeyRow], object] = lambda tx, key: service_keys.delete(tx, ADMIN, key)  # noqa: E731


@pytest.mark.parametrize(
    ("state", "move", "refused"),
    [
        (KeyState.ACTIVE, RENAME, None),
        (KeyState.ACTIVE, REVOKE, None),
        (KeyState.ACTIVE, DELETE, "in ACTIVE state cannot be deleted"),
        (KeyState.REVOKED, RENAME, "in REVOKED state cannot be renamed"),
        (KeyState.REVOKED, REVOKE, "in REVOKED state cannot be revoked"),
        (KeyState.REVOKED, DELETE, None),
        (KeyState.EXPIRED, RENAME, "in EXPIRED state cannot be renamed"),
        (KeyState.EXPIRED, REVOKE, "in EXPIRED state cannot be revoked"),
        (KeyState.EXPIRED, DELETE, None),
    ],
    ids=["active-rename", "active-revoke", "active-delete", "revoked-rename", "revoked-revoke", "revoked-delete",
         "expired-rename", "expired-revoke", "expired-delete"],
)  # fmt: skip
async def test_a_key_makes_only_the_moves_of_its_lifecycle(
    inventory: Inventory, state: KeyState, move: Callable[[Transaction, ServiceKeyRow], object], refused: str | None
) -> None:
    key = await in_state(inventory, state)
    events = len(await inventory.read(lambda tx: tx.audit.find()))
    if refused is None:
        await inventory.write(lambda tx: move(tx, key))
        assert len(await inventory.read(lambda tx: tx.audit.find())) > events
    else:
        with pytest.raises(LifecycleError, match=refused):
            await inventory.write(lambda tx: move(tx, key))
        assert await inventory.read(lambda tx: tx.service_keys.get(key.id)) == key
        assert len(await inventory.read(lambda tx: tx.audit.find())) == events


async def test_revoking_orders_a_cut_ends_sessions_and_is_told_to_listeners(inventory: Inventory) -> None:
    def prepare(tx: Transaction) -> ServiceKeyRow:
        inventory.grant(tx)
        key = inventory.add_key(tx)
        add_session(tx, key)
        return key

    key = await inventory.write(prepare)
    before = await inventory.read(lambda tx: tx.head())
    with inventory.cuts() as ordered:
        await inventory.write(lambda tx: service_keys.revoke(tx, ADMIN, key))
    [cut] = ordered
    assert (cut.scope, cut.reason) == (CutScope.of_key(Kid(key.kid)), FlowFailure.SERVICE_KEY_REVOKED)
    assert cut.stamp > before
    [announced] = inventory.heard[-1].cuts
    assert (announced.cut.token, announced.connectors) == (f"signed {cut.id}", (inventory.connector.id,))
    session = await inventory.read(lambda tx: tx.sessions.get("s" * 22))
    assert session is not None
    assert (session.ended_at_ms, session.end_reason) == (round(inventory.now * 1000), "service-key-revoked")
    shown = await inventory.read(lambda tx: cuts.receipt(tx, cut.id))
    assert [(receipt["connector"], receipt["state"]) for receipt in shown["receipts"]] == [("office-1", "pending")]


async def test_an_expiry_is_cut_once_when_it_comes(inventory: Inventory) -> None:
    key = await inventory.write(lambda tx: inventory.add_key(tx, days=1))
    assert await inventory.write(service_keys.end_expired) == 0
    inventory.now += 24 * 3600
    with inventory.cuts() as ordered:
        assert await inventory.write(service_keys.end_expired) == 1
        assert await inventory.write(service_keys.end_expired) == 0
    assert [(cut.scope, cut.reason) for cut in ordered] == [(CutScope.of_key(Kid(key.kid)), FlowFailure.SERVICE_KEY_EXPIRED)]


async def test_deleting_an_expired_key_before_its_cut_orders_the_cut(inventory: Inventory) -> None:
    key = await in_state(inventory, KeyState.EXPIRED)
    with inventory.cuts() as ordered:
        await inventory.write(lambda tx: service_keys.delete(tx, ADMIN, key))
    assert [cut.reason for cut in ordered] == [FlowFailure.SERVICE_KEY_EXPIRED]
    assert await inventory.read(lambda tx: tx.service_keys.get(key.id)) is None


async def test_deleting_an_account_ends_all_its_keys_sessions_and_access(inventory: Inventory) -> None:
    def prepare(tx: Transaction) -> None:
        inventory.grant(tx)
        for number in range(2):
            add_session(tx, inventory.add_key(tx), f"session-number-{number:07}")

    await inventory.write(prepare)
    with inventory.cuts() as ordered:
        await inventory.write(lambda tx: service_accounts.delete(tx, ADMIN, inventory.ci))
    assert [cut.scope for cut in ordered] == [CutScope.of_account(ServiceAccountUuid(inventory.ci.uuid))]
    assert inventory.heard[-1].cuts[0].connectors == (inventory.connector.id,)

    def left(tx: Transaction) -> list[object]:
        return [*tx.service_keys.find(), *tx.access.find(), *tx.service_accounts.find(), *tx.sessions.find(ended_at_ms=None)]

    assert await inventory.read(left) == []


async def test_a_revoked_key_cannot_begin_a_session(inventory: Inventory) -> None:
    key = await in_state(inventory, KeyState.REVOKED)
    with pytest.raises(Exception, match="was revoked"):
        await inventory.read(lambda tx: sessions.check_usable(sessions.key_for_login(tx, Kid(key.kid))[0], tx.now_ms))


async def test_the_audit_tells_who_did_what_to_which_key_and_nothing_secret(inventory: Inventory) -> None:
    key = await in_state(inventory, KeyState.REVOKED)
    await inventory.write(lambda tx: service_keys.delete(tx, ADMIN, key))
    events = await inventory.read(lambda tx: tx.audit.find())
    keys = [event for event in events if event.targets[0]["type"] == "serviceAccountKey"]
    assert [(event.action, event.targets[0]["state"]) for event in keys] == [
        ("create", "active"), ("edit", "revoked"), ("delete", "deleted"),
    ]  # fmt: skip
    account = {"version": "1", "type": "serviceAccount", "id": str(inventory.ci.id), "name": "ci"}
    assert keys[-1].targets == [
        {
            "version": "1",
            "type": "serviceAccountKey",
            "id": str(key.id),
            "name": "runner",
            "state": "deleted",
            "serviceAccount": account,
        }
    ]
    assert (keys[-1].actor["type"], keys[-1].actor["id"]) == ("API", "1")
    assert "PEM" not in str(events)
