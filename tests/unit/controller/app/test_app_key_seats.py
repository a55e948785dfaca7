"""Seats: how many sessions one key may have at a time, and what happens beyond."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.controller.app import account_limits, key_hygiene, service_keys, sessions
from klinket.controller.app.key_seats import ATTACHED_RETRY_SECONDS, SEAT_MS
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceKeyRow
from klinket.controller.app.service_keys import KeyUse
from klinket.domain.account_limits import SeatsExceeded
from klinket.domain.errors import InvalidInput, LifecycleError, ServiceKeyUnknown, Throttled
from klinket.domain.identifiers import Kid, ServiceAccountUuid, SessionId, Thumbprint
from klinket.wire.assertion import Assertion
from tests.unit.controller.app.conftest import ADMIN, Inventory


async def key_with(inventory: Inventory, use: KeyUse, kid: str = "k") -> ServiceKeyRow:
    return await inventory.write(
        lambda tx: service_keys.create(tx, ADMIN, inventory.ci, days=0, name=kid, kid=Kid(kid), public_key="PEM", use=use)
    )


async def log_in(inventory: Inventory, session: str, *attached: str, kid: str = "k") -> None:
    proof = Assertion(
        kid=Kid(kid), account=ServiceAccountUuid(inventory.ci.uuid), jkt=Thumbprint(session), jti=session,
        expires_at=inventory.now + 60,
    )  # fmt: skip

    def begin(tx: Transaction) -> None:
        sessions.begin(
            tx, proof, SessionId(session), hostname=f"host of {session}", client_version="1", address="192.0.2.1",
            attached=attached,
        )  # fmt: skip

    await inventory.write(begin)


async def warnings(inventory: Inventory) -> list[dict[str, object]]:
    return [row.detail for row in await inventory.read(lambda tx: tx.audit.find()) if row.action == "warn"]


async def test_a_second_user_of_a_key_with_one_seat_is_refused_and_told_when_to_come_again(inventory: Inventory) -> None:
    await key_with(inventory, KeyUse(1, SeatsExceeded.REFUSE))
    await log_in(inventory, "a")
    inventory.now += 20
    with pytest.raises(Throttled, match="service key 'k' has one seat") as caught:
        await log_in(inventory, "b")
    assert (caught.value.limit, caught.value.retry_after) == ("seats", SEAT_MS / 1000 - 20)
    assert "has one seat, and one session holds it; one may be free in 40 s" in caught.value.message
    assert "try again in 40 s, or let klinket wait: --timeout 70; or give the key more" in caught.value.hint
    with pytest.raises(Throttled, match="when a session ends") as caught:
        await log_in(inventory, "b", "a")
    assert caught.value.retry_after == ATTACHED_RETRY_SECONDS
    inventory.now += 41
    await log_in(inventory, "b")


async def test_a_second_user_of_a_key_that_alerts_gets_in_and_the_audit_names_all(inventory: Inventory) -> None:
    await key_with(inventory, KeyUse(1))
    await log_in(inventory, "a")
    assert await warnings(inventory) == []
    await log_in(inventory, "b", "a")
    (detail,) = await warnings(inventory)
    assert (detail["code"], detail["seats"], detail["sessions"], detail["session"]) == ("seats-exceeded", 1, 2, "b")
    assert detail["others"] == [{"session": "a", "hostname": "host of a", "address": "192.0.2.1"}]


async def test_a_session_that_has_ended_frees_its_seat_at_once(inventory: Inventory) -> None:
    await key_with(inventory, KeyUse(1, SeatsExceeded.REFUSE))
    await log_in(inventory, "a")
    await inventory.write(lambda tx: sessions.end(tx, SessionId("a"), sessions.LOGOUT, "192.0.2.1", cut=False))
    await log_in(inventory, "b")


async def test_the_seats_of_one_key_are_not_those_of_another_of_the_same_account(inventory: Inventory) -> None:
    await key_with(inventory, KeyUse(1, SeatsExceeded.REFUSE))
    await key_with(inventory, KeyUse(1, SeatsExceeded.REFUSE), "other")
    await log_in(inventory, "a")
    await log_in(inventory, "b", kid="other")


async def test_an_account_has_so_many_sessions_whatever_the_seats_of_its_keys(inventory: Inventory) -> None:
    await key_with(inventory, KeyUse(10))
    await inventory.write(
        lambda tx: account_limits.set_own(tx, ADMIN, inventory.ci, {"max_sessions": 2}, {"max_sessions": "max_sessions"})
    )
    await log_in(inventory, "a")
    await log_in(inventory, "b")
    with pytest.raises(Throttled, match="its limit is 2") as caught:
        await log_in(inventory, "c")
    assert caught.value.limit == "sessions"


async def test_a_key_that_takes_over_has_the_same_seats(inventory: Inventory) -> None:
    old = await key_with(inventory, KeyUse(1, SeatsExceeded.REFUSE))
    new = await inventory.write(
        lambda tx: key_hygiene.rotate(tx, ADMIN, old, days=1, overlap_hours=1, name=None, kid=Kid("new"), public_key="PEM")
    )
    assert (new.seats, new.seats_exceeded, new.is_canary) == (1, "refuse", False)


async def test_seats_are_changed_with_an_audit_event_and_only_of_an_active_key(inventory: Inventory) -> None:
    row = await key_with(inventory, KeyUse(1))
    row = await inventory.write(lambda tx: service_keys.set_seats(tx, ADMIN, row, 2, SeatsExceeded.REFUSE))
    event = (await inventory.read(lambda tx: tx.audit.find()))[-1]
    assert event.detail["seats"] == 2
    assert event.detail["before"] == {"seats": 1, "seatsExceeded": "alert"}
    with pytest.raises(InvalidInput):
        await inventory.write(lambda tx: service_keys.set_seats(tx, ADMIN, row, 0, SeatsExceeded.REFUSE))
    row = await inventory.write(lambda tx: service_keys.revoke(tx, ADMIN, row))
    with pytest.raises(LifecycleError):
        await inventory.write(lambda tx: service_keys.set_seats(tx, ADMIN, row, 3, SeatsExceeded.REFUSE))


async def test_a_canary_key_begins_no_session_and_takes_over_from_none(inventory: Inventory) -> None:
    row = await key_with(inventory, KeyUse(is_canary=True))
    with pytest.raises(ServiceKeyUnknown, match="no such service key"):
        await log_in(inventory, "a")
    with pytest.raises(LifecycleError, match="canary"):
        await inventory.write(
            lambda tx: key_hygiene.rotate(tx, ADMIN, row, days=1, overlap_hours=1, name=None, kid=Kid("n"), public_key="PEM")
        )
    with pytest.raises(InvalidInput, match="no seats"):
        await key_with(inventory, KeyUse(1, is_canary=True), "other")


@settings(max_examples=15, deadline=None)
@given(
    seats=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from(["login", "logout", "attach", "detach", "wait"]), st.integers(0, 9)), max_size=25),
)
@pytest.mark.sqlite_only
async def test_a_key_that_refuses_never_has_more_sessions_than_seats(seats: int, steps: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        inventory = Inventory(Path(folder) / "klinket.db")
        try:
            await inventory.fill()
            await key_with(inventory, KeyUse(seats, SeatsExceeded.REFUSE))
            born: dict[str, float] = {}
            attached: set[str] = set()
            for number, (step, which) in enumerate(steps):
                chosen = sorted(born)[which % len(born)] if born else ""
                held = {one for one, at in born.items() if one in attached or at > inventory.now - SEAT_MS / 1000}
                if step == "login":
                    session = f"s{number:02}"
                    try:
                        await log_in(inventory, session, *attached)
                    except Throttled:
                        assert len(held) == seats
                    else:
                        assert len(held) < seats
                        born[session] = inventory.now
                elif step == "logout" and born:
                    await inventory.write(
                        lambda tx, one=chosen: sessions.end(tx, SessionId(one), sessions.LOGOUT, "", cut=False)  # type: ignore[misc]
                    )
                    del born[chosen]
                    attached.discard(chosen)
                elif step == "attach" and chosen in held:
                    attached.add(chosen)
                elif step == "detach":
                    attached.discard(chosen)
                else:
                    inventory.now += 7 * which
        finally:
            inventory.store.close()
