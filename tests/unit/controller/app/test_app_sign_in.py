"""Signing in, as use cases on a real store with a clock that tests move: lock-out, codes, passkeys, links, sessions."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from klinket.controller.app import (
    console_sessions,
    lock_out,
    passkeys,
    passwords,
    recovery_codes,
    second_factors,
    sign_in,
    sign_in_links,
    totp_secrets,
    used_challenges,
    users,
)
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.lock_out import Counted, Proof
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AuditRow, UserRow
from klinket.controller.app.sign_in import Browser
from klinket.domain.audit import SYSTEM, Actor, ActorType
from klinket.domain.errors import (
    AuthenticationFailed,
    Conflict,
    KlinketError,
    NotFound,
    SignInLocked,
    SignInOver,
    SignInRefused,
)
from klinket.domain.lock_out import ACCOUNT, ADDRESS, FORGET_MS
from tests.unit.controller.app.conftest import Inventory

HERE = Browser("192.0.2.7", "a browser")
SOMEBODY = Actor(ActorType.USER, source=HERE.address)


def counted(account: str = "ada@example.com", source: str = "192.0.2.7", device: str | None = None) -> Counted:
    return Counted(source, account, device)


async def add_user(inventory: Inventory, email: str = "ada@example.com", role: str = "ADMIN") -> UserRow:
    def add(tx: Transaction) -> UserRow:
        row = users.create(tx, SYSTEM, email=email, first_name=None, last_name=None, role=role)
        row = tx.users.change(row.id, state=users.ACTIVE)
        passwords.put(tx, SYSTEM, row, f"$argon2id$of-{email}")
        return row

    return await inventory.write(add)


async def events(inventory: Inventory, action: str) -> list[AuditRow]:
    return [row for row in await inventory.read(lambda tx: tx.audit.find()) if row.action == action]


async def fail(inventory: Inventory, tried: Counted, times: int) -> None:
    def once(tx: Transaction) -> None:
        found = sign_in.try_password(tx, tried.account, tried)
        sign_in.refuse(tx, SOMEBODY, found.user, tried, "password")

    for _ in range(times):
        await inventory.write(once)


async def is_locked(inventory: Inventory, tried: Counted) -> float | None:
    """Return for how many seconds; None: not."""
    try:
        await inventory.write(lambda tx: lock_out.count_try(tx, tried))
    except SignInLocked as locked:
        return locked.retry_after
    await inventory.write(lambda tx: lock_out.succeeded(tx, tried))
    return None


# ---- lock-out


async def test_an_address_is_locked_long_before_an_account_is(inventory: Inventory) -> None:
    await add_user(inventory)
    await fail(inventory, counted(), ADDRESS.free + 1)
    assert await is_locked(inventory, counted()) == 2.0
    assert await is_locked(inventory, counted(source="198.51.100.1")) is None
    assert await is_locked(inventory, counted("other@example.com")) == 2.0


async def test_an_account_is_locked_for_strangers_from_everywhere_and_never_for_a_browser_it_knows(inventory: Inventory) -> None:
    await add_user(inventory)
    for number in range(ACCOUNT.free + 1):
        await fail(inventory, counted(source=f"198.51.100.{number}"), 1)
    assert await is_locked(inventory, counted(source="203.0.113.9")) == 2.0
    assert await is_locked(inventory, counted(source="203.0.113.9", device="known")) is None


async def test_a_known_browser_that_guesses_is_locked_itself(inventory: Inventory) -> None:
    await add_user(inventory)
    await fail(inventory, counted(device="known"), ACCOUNT.free + 1)
    assert await is_locked(inventory, counted(device="known")) == 2.0
    assert await is_locked(inventory, counted()) is None


async def test_nothing_tells_whether_a_locked_account_exists(inventory: Inventory) -> None:
    await add_user(inventory)
    told = []
    for account in ("ada@example.com", "nobody@example.com"):
        tried = counted(account.strip(), source=f"10.{len(told)}.0.1")
        await fail(inventory, tried, ADDRESS.free + 1)
        with pytest.raises(SignInLocked) as locked:
            await inventory.write(lambda tx, tried=tried: lock_out.count_try(tx, tried))
        told.append((locked.value.message, locked.value.hint, locked.value.retry_after))
    assert len(set(told)) == 1
    refused = await events(inventory, "refuse")
    assert {row.detail["code"] for row in refused} == {"sign-in-refused"}
    assert "nobody" not in str([(row.targets, row.detail, row.actor) for row in refused])  # it may have been a password


async def test_a_lock_ends_by_itself_and_tries_during_it_do_not_make_it_longer(inventory: Inventory) -> None:
    await fail(inventory, counted(), ADDRESS.free + 1)
    for seconds in (2, 4, 8, 16):
        assert await is_locked(inventory, counted()) == seconds
        inventory.now += seconds - 0.5
        assert await is_locked(inventory, counted()) == 1.0
        inventory.now += 0.5
        await fail(inventory, counted(), 1)
    inventory.now += 32
    assert await is_locked(inventory, counted()) is None


async def test_tries_made_at_the_same_time_count_before_they_are_decided(inventory: Inventory) -> None:
    for _ in range(ADDRESS.free + 1):
        await inventory.write(lambda tx: lock_out.count_try(tx, counted()))
    with pytest.raises(SignInLocked):
        await inventory.write(lambda tx: lock_out.count_try(tx, counted()))


async def test_a_success_forgives_the_account_and_not_the_address(inventory: Inventory) -> None:
    await fail(inventory, counted(), ADDRESS.free)
    await inventory.write(lambda tx: (lock_out.count_try(tx, counted()), lock_out.succeeded(tx, counted())))
    kinds = await inventory.read(lambda tx: {row.key.partition(" ")[0]: row.failures for row in tx.lock_outs.all()})
    assert kinds == {"address": float(ADDRESS.free)}


async def test_a_lock_out_is_in_the_audit_with_the_account_where_there_is_one(inventory: Inventory) -> None:
    user = await add_user(inventory)
    await fail(inventory, counted(), ADDRESS.free + 1)
    (row,) = await events(inventory, "lockOut")
    assert (row.targets[0]["id"], row.detail) == (str(user.id), {"what": "address", "seconds": 2, "failures": 9})
    assert row.actor["source"] == HERE.address


async def test_lock_outs_are_forgotten_and_bounded(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        await fail(inventory, counted(f"{number}@example.com", source=f"10.0.0.{number}"), 1)
        inventory.now += 1
    monkeypatch.setattr(lock_out, "MAX_KEYS", 5)
    await inventory.write(sign_in.forget)
    assert await inventory.read(lambda tx: tx.lock_outs.count()) == 5
    inventory.now += FORGET_MS / 1000
    await inventory.write(sign_in.forget)
    assert await inventory.read(lambda tx: tx.lock_outs.count()) == 0


# ---- the password


async def begun(inventory: Inventory, email: str = "ada@example.com") -> tuple[Any, str] | None:
    tried = counted(email)

    def begin(tx: Transaction) -> tuple[Any, str] | None:
        return sign_in.accept_password(tx, sign_in.try_password(tx, email, tried), tried, HERE, os.urandom)

    return await inventory.write(begin)


@pytest.mark.parametrize(("state", "role"), [("DISABLED", "ADMIN"), ("PENDING", "ADMIN"), ("ACTIVE", "MEMBER")])
async def test_a_right_password_is_not_enough_for_who_has_no_console(inventory: Inventory, state: str, role: str) -> None:
    user = await add_user(inventory, role=role)
    await inventory.write(lambda tx: tx.users.change(user.id, state=state))
    assert await begun(inventory) is None


async def test_a_right_password_opens_the_next_step_only(inventory: Inventory) -> None:
    user = await add_user(inventory)
    made = await begun(inventory)
    assert made is not None
    assert made[0].stage == Stage.SET_UP.value
    await inventory.write(lambda tx: totp_secrets.confirm(tx, SYSTEM, user, totp_secrets.offer(tx, user.id, b"s").id, 1))
    made = await begun(inventory)
    assert made is not None
    assert made[0].stage == Stage.SECOND_FACTOR.value
    assert not await inventory.read(lambda tx: console_sessions.is_freshly_proved(made[0], tx.now_ms))
    assert not await events(inventory, "login")


async def test_a_password_changed_meanwhile_does_not_count(inventory: Inventory) -> None:
    user = await add_user(inventory)

    def race(tx: Transaction) -> object:
        tried = sign_in.try_password(tx, user.email, counted())
        passwords.put(tx, SYSTEM, user, "$another")
        return sign_in.accept_password(tx, tried, counted(), HERE, os.urandom)

    assert await inventory.write(race) is None


async def test_sign_ins_that_are_not_finished_end_no_session(inventory: Inventory) -> None:
    user = await add_user(inventory)
    kept = (await inventory.write(lambda tx: sign_in.enter(tx, user, HERE, "passkey", os.urandom)))[1]
    for _ in range(console_sessions.MAX_PER_USER + 5):
        assert await begun(inventory)
    assert (await inventory.read(lambda tx: console_sessions.by_text(tx, kept)))[1].id == user.id
    assert await inventory.read(lambda tx: tx.console_sessions.count()) == console_sessions.MAX_PER_USER + 1


async def test_a_step_up_has_a_new_text_and_the_former_one_is_dead(inventory: Inventory) -> None:
    user = await add_user(inventory)
    made = await begun(inventory)
    assert made is not None
    session, before = made
    _, after = await inventory.write(lambda tx: sign_in.complete(tx, session, user, HERE, "password+totp", os.urandom))
    with pytest.raises(AuthenticationFailed):
        await inventory.read(lambda tx: console_sessions.by_text(tx, before))
    whole, _ = await inventory.read(lambda tx: console_sessions.by_text(tx, after))
    assert whole.stage == Stage.FULL.value
    (row,) = await events(inventory, "login")
    assert (row.actor["id"], row.detail) == (str(user.id), {"method": "password+totp"})


# ---- sessions


async def test_sessions_are_ended_one_or_all_but_one_and_the_audit_says_so(inventory: Inventory) -> None:
    user, other = await add_user(inventory), await add_user(inventory, "bob@example.com")
    rows = [(await inventory.write(lambda tx: sign_in.enter(tx, user, HERE, "passkey", os.urandom)))[0] for _ in range(4)]
    assert not await inventory.write(lambda tx: sign_in.end_session(tx, SYSTEM, other, rows[0].id))
    assert await inventory.write(lambda tx: sign_in.end_session(tx, SYSTEM, user, rows[0].id))
    assert await inventory.write(lambda tx: sign_in.end_sessions(tx, SYSTEM, user, but=rows[1].id)) == 2
    assert [row.id for row in await inventory.read(lambda tx: tx.console_sessions.find())] == [rows[1].id]
    assert [row.detail for row in await events(inventory, "logout")] == [{"session": str(rows[0].id)}, {"sessions": 2}]


async def test_disabling_a_user_ends_the_sessions_for_good(inventory: Inventory) -> None:
    user = await add_user(inventory, role="DEVOPS")
    _, text = await inventory.write(lambda tx: sign_in.enter(tx, user, HERE, "passkey", os.urandom))

    def turn(state: str) -> Callable[[Transaction], object]:
        return lambda tx: users.update(tx, SYSTEM, users.get(tx, user.id, 0), first_name=None, last_name=None, state=state)

    await inventory.write(turn("DISABLED"))
    await inventory.write(turn("ACTIVE"))
    with pytest.raises(AuthenticationFailed):
        await inventory.read(lambda tx: console_sessions.by_text(tx, text))


async def test_a_deleted_user_leaves_nothing_to_sign_in_with(inventory: Inventory) -> None:
    user = await add_user(inventory, role="DEVOPS")
    await inventory.write(lambda tx: add_passkey(tx, user))
    await inventory.write(lambda tx: recovery_codes.replace(tx, SYSTEM, user, os.urandom))
    await inventory.write(lambda tx: sign_in.enter(tx, user, HERE, "passkey", os.urandom))
    await inventory.write(lambda tx: sign_in_links.create(tx, SYSTEM, user, os.urandom))
    await inventory.write(lambda tx: users.delete(tx, SYSTEM, user))

    def left(tx: Transaction) -> list[int]:
        tables = (tx.passwords, tx.passkeys, tx.recovery_codes, tx.console_sessions, tx.sign_in_links, tx.totp_secrets)
        return [table.count() for table in tables]

    assert await inventory.read(left) == [0] * 6


# ---- authenticator app


async def test_a_code_is_taken_once_and_none_before_it_afterwards(inventory: Inventory) -> None:
    user = await add_user(inventory)
    offered = await inventory.write(lambda tx: totp_secrets.offer(tx, user.id, b"sealed"))
    await inventory.write(lambda tx: totp_secrets.confirm(tx, SYSTEM, user, offered.id, 100))
    for step, taken in ((100, False), (99, False), (101, True), (101, False), (100, False), (103, True), (102, False)):
        try:
            await inventory.write(lambda tx, step=step: totp_secrets.accept(tx, offered.id, step))
            assert taken, step
        except SignInRefused:
            assert not taken, step


async def test_a_new_secret_replaces_the_old_one_when_it_is_confirmed_and_not_before(inventory: Inventory) -> None:
    user = await add_user(inventory)

    def offer(sealed: bytes) -> Callable[[Transaction], Any]:
        return lambda tx: totp_secrets.offer(tx, user.id, sealed)

    first = await inventory.write(offer(b"first"))
    await inventory.write(lambda tx: totp_secrets.confirm(tx, SYSTEM, user, first.id, 1))
    second = await inventory.write(offer(b"second"))
    third = await inventory.write(offer(b"third"))
    with pytest.raises(Conflict, match="another secret"):
        await inventory.write(lambda tx: totp_secrets.confirm(tx, SYSTEM, user, second.id, 1))
    assert (await inventory.read(lambda tx: totp_secrets.confirmed(tx, user.id))).sealed == b"first"
    await inventory.write(lambda tx: totp_secrets.confirm(tx, SYSTEM, user, third.id, 1))
    assert (await inventory.read(lambda tx: totp_secrets.confirmed(tx, user.id))).sealed == b"third"
    with pytest.raises(SignInRefused):
        await inventory.write(lambda tx: totp_secrets.accept(tx, first.id, 50))


# ---- recovery codes


async def test_each_recovery_code_works_once_and_for_its_user(inventory: Inventory) -> None:
    user, other = await add_user(inventory), await add_user(inventory, "bob@example.com")
    codes = await inventory.write(lambda tx: recovery_codes.replace(tx, SYSTEM, user, os.urandom))
    assert len(set(codes)) == 10
    with pytest.raises(SignInRefused):
        await inventory.write(lambda tx: recovery_codes.redeem(tx, other.id, codes[0]))
    assert await inventory.write(lambda tx: recovery_codes.redeem(tx, user.id, codes[0].upper())) == 9
    for text in (codes[0], "nonsense", ""):
        with pytest.raises(SignInRefused, match="not right, or it was used"):
            await inventory.write(lambda tx, text=text: recovery_codes.redeem(tx, user.id, text))


async def test_new_recovery_codes_kill_the_earlier_ones_and_none_is_stored_in_the_clear(inventory: Inventory) -> None:
    user = await add_user(inventory)
    old = await inventory.write(lambda tx: recovery_codes.replace(tx, SYSTEM, user, os.urandom))
    new = await inventory.write(lambda tx: recovery_codes.replace(tx, SYSTEM, user, os.urandom))
    with pytest.raises(SignInRefused):
        await inventory.write(lambda tx: recovery_codes.redeem(tx, user.id, old[3]))
    stored = await inventory.read(lambda tx: {row.code_hash for row in tx.recovery_codes.all()})
    assert len(stored) == 10
    audited = str([(row.targets, row.detail) for row in await inventory.read(lambda tx: tx.audit.find())])
    assert not any(code in audited or code in stored for code in old + new)


# ---- passkeys


def add_passkey(tx: Transaction, user: UserRow, credential: str = "AAAA", count: int = 0) -> Any:
    values = {"name": "laptop", "credential_id": credential, "public_key": b"k", "sign_count": count, "transports": ["internal"]}
    return passkeys.add(tx, SYSTEM, user, **values)


@pytest.mark.parametrize(
    ("stored", "told", "believed"), [(0, 0, True), (0, 5, True), (5, 6, True), (5, 5, False), (5, 4, False), (5, 0, False)]
)
async def test_a_counter_that_does_not_go_up_tells_of_a_copy(
    inventory: Inventory, stored: int, told: int, believed: bool
) -> None:
    user = await add_user(inventory)
    row = await inventory.write(lambda tx: add_passkey(tx, user, count=stored))
    if believed:
        used = await inventory.write(lambda tx: passkeys.used(tx, row.id, told))
        assert (used.sign_count, used.last_used_ms) == (told, round(inventory.now * 1000))
    else:
        with pytest.raises(SignInRefused, match="copy"):
            await inventory.write(lambda tx: passkeys.used(tx, row.id, told))


async def test_a_passkey_is_registered_once_and_there_is_a_limit(inventory: Inventory) -> None:
    user, other = await add_user(inventory), await add_user(inventory, "bob@example.com")
    await inventory.write(lambda tx: add_passkey(tx, user))
    with pytest.raises(Conflict, match="registered already"):
        await inventory.write(lambda tx: add_passkey(tx, other))
    for number in range(1, passkeys.MAX_PASSKEYS):
        await inventory.write(lambda tx, number=number: add_passkey(tx, user, f"A{number}"))
    with pytest.raises(Conflict, match="20 passkeys"):
        await inventory.write(lambda tx: add_passkey(tx, user, "more"))


async def test_the_last_second_factor_stays_and_nobody_elses_is_touched(inventory: Inventory) -> None:
    user, other = await add_user(inventory), await add_user(inventory, "bob@example.com")
    first = await inventory.write(lambda tx: add_passkey(tx, user))
    with pytest.raises(Conflict, match="last second factor"):
        await inventory.write(lambda tx: passkeys.remove(tx, SYSTEM, user, first.id))
    await inventory.write(lambda tx: totp_secrets.confirm(tx, SYSTEM, user, totp_secrets.offer(tx, user.id, b"s").id, 1))
    with pytest.raises(NotFound):
        await inventory.write(lambda tx: passkeys.remove(tx, SYSTEM, other, first.id))
    with pytest.raises(NotFound):
        await inventory.write(lambda tx: passkeys.rename(tx, SYSTEM, other, first.id, "mine"))
    await inventory.write(lambda tx: passkeys.remove(tx, SYSTEM, user, first.id))
    with pytest.raises(Conflict, match="last second factor"):
        await inventory.write(lambda tx: totp_secrets.remove(tx, SYSTEM, user))


async def test_resetting_second_factors_takes_all_of_them_and_the_sessions(inventory: Inventory) -> None:
    user = await add_user(inventory)
    await inventory.write(lambda tx: add_passkey(tx, user))
    await inventory.write(lambda tx: sign_in.enter(tx, user, HERE, "passkey", os.urandom))
    await inventory.write(lambda tx: users.reset_second_factor(tx, SYSTEM, user))
    assert not await inventory.read(lambda tx: second_factors.has_one(tx, user.id))
    assert await inventory.read(lambda tx: tx.console_sessions.count()) == 0
    assert await inventory.read(lambda tx: tx.passwords.count(user_id=user.id)) == 0


# ---- challenges


async def test_a_challenge_is_used_once_and_forgotten_when_it_would_not_count_anyway(inventory: Inventory) -> None:
    ends = round(inventory.now * 1000) + 1_000
    await inventory.write(lambda tx: used_challenges.use(tx, "c", ends))
    with pytest.raises(SignInOver):
        await inventory.write(lambda tx: used_challenges.use(tx, "c", ends))
    inventory.now += 2
    await inventory.write(sign_in.forget)
    assert await inventory.read(lambda tx: tx.used_challenges.count()) == 0


# ---- links


async def use_link(inventory: Inventory, text: str, email: str = "") -> UserRow:
    def use(tx: Transaction) -> UserRow:
        row = sign_in_links.by_text(tx, text)
        return sign_in_links.accept(tx, row, SYSTEM, email=email, first_name="Ada", last_name=None)

    return await inventory.write(use)


async def test_the_first_admins_link_is_made_once_and_works_once(inventory: Inventory) -> None:
    text = await inventory.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom))
    assert text is not None
    assert await inventory.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom)) is None
    (told,) = (await inventory.read(lambda tx: tx.audit.newest(1, order="number")))[0].targets
    assert (told["type"], told["name"]) == ("controller", "first admin")
    user = await use_link(inventory, text, "Ada@Example.com")
    assert (user.email, user.role, user.state, user.first_name) == ("ada@example.com", "ADMIN", "ACTIVE", "Ada")
    with pytest.raises(SignInOver):
        await use_link(inventory, text, "eve@example.com")


async def test_there_is_no_first_link_once_there_is_an_admin(inventory: Inventory) -> None:
    text = await inventory.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom))
    assert text is not None
    await add_user(inventory)
    with pytest.raises(SignInOver):
        await use_link(inventory, text, "eve@example.com")
    inventory.now += 2 * 86_400
    assert await inventory.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom)) is None


async def test_a_first_link_that_nobody_used_is_made_again_after_a_day(inventory: Inventory) -> None:
    first = await inventory.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom))
    inventory.now += 86_400
    second = await inventory.write(lambda tx: sign_in_links.first_admin(tx, SYSTEM, os.urandom))
    assert first is not None
    assert second is not None
    with pytest.raises(SignInOver):
        await use_link(inventory, first, "ada@example.com")
    await use_link(inventory, second, "ada@example.com")


async def test_a_link_takes_away_what_there_was_when_it_is_used_and_not_before(inventory: Inventory) -> None:
    user = await add_user(inventory)
    await inventory.write(lambda tx: add_passkey(tx, user))
    await inventory.write(lambda tx: sign_in.enter(tx, user, HERE, "passkey", os.urandom))
    text = await inventory.write(lambda tx: sign_in_links.create(tx, SYSTEM, user, os.urandom))

    def left(tx: Transaction) -> tuple[int, int, int]:
        return tx.passwords.count(), tx.passkeys.count(), tx.console_sessions.count()

    assert await inventory.read(left) == (1, 1, 1)
    assert (await use_link(inventory, text, "ignored@example.com")).email == "ada@example.com"
    assert await inventory.read(left) == (0, 0, 0)


@pytest.mark.parametrize("why", ["used", "old", "newer", "mistyped", "nonsense", "disabled"])
async def test_a_dead_link_is_told_the_same_for_every_reason(inventory: Inventory, why: str) -> None:
    user = await add_user(inventory)
    text = await inventory.write(lambda tx: sign_in_links.create(tx, SYSTEM, user, os.urandom))
    if why == "used":
        await use_link(inventory, text)
    elif why == "old":
        inventory.now += 86_400
    elif why == "newer":
        await inventory.write(lambda tx: sign_in_links.create(tx, SYSTEM, user, os.urandom))
    elif why == "disabled":
        await inventory.write(lambda tx: tx.users.change(user.id, state="DISABLED"))
    else:
        text = text[:-1] + ("y" if text.endswith("x") else "x") if why == "mistyped" else "nonsense"
    with pytest.raises(SignInOver) as over:
        await use_link(inventory, text)
    assert over.value.message == sign_in_links.DEAD


@pytest.mark.parametrize(("role", "state"), [(None, None), ("MEMBER", "PENDING"), ("SUPPORT", "DISABLED"), ("ADMIN", "ACTIVE")])
async def test_whoever_owns_the_machine_makes_anybody_an_admin(inventory: Inventory, role: str | None, state: str | None) -> None:
    if role is not None:
        user = await add_user(inventory, role=role)
        await inventory.write(lambda tx: tx.users.change(user.id, state=state))
    text = await inventory.write(lambda tx: sign_in_links.admin_link(tx, SYSTEM, "Ada@example.com", os.urandom))
    row = await use_link(inventory, text)
    assert (row.email, row.role, row.state) == ("ada@example.com", "ADMIN", "ACTIVE")


def test_a_link_keeps_its_code_where_browsers_do_not_send_it() -> None:
    assert sign_in_links.address_of("https://k.example/", "kl_link_x") == "https://k.example/console/sign-in/link#kl_link_x"


def test_second_factors_and_passwords_are_counted_apart() -> None:
    assert not set(Counted("s", "a").keys[1:]) & set(Counted("s", "a", None, Proof.FACTOR).keys[1:])
    assert issubclass(SignInLocked, KlinketError)
