"""A sign-in to the console, step by step: what is counted, who may go on, and what the audit says of it.

What guesses may learn is the same for every account and for none: the texts, the writes to the store, the audit events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from klinket.controller.app import (
    console_sessions,
    lock_out,
    passwords,
    second_factors,
    sign_in_links,
    used_challenges,
    users,
)
from klinket.controller.app.audit import controller_target, user_target
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.lock_out import Counted
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ConsoleSessionRow, UserRow
from klinket.domain.audit import ActorType, AuditAction, AuditEvent
from klinket.domain.errors import IdentityRefused, InvalidInput, SignInOver, SignInRefused
from klinket.domain.role import permissions_of

REFUSED = "e-mail address and password do not belong together, or this account may not use the console"
REFUSED_HINT = "try again, use a passkey, or ask an admin for a link"


@dataclass(frozen=True, slots=True)
class Browser:
    """Where a request comes from: address, and what the browser says it is."""

    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A try with a password that was counted. `phc` is None where there is nothing to compare with."""

    user: UserRow | None
    phc: str | None


def may_sign_in(user: UserRow | None) -> bool:
    """Return whether somebody has a console at all."""
    return user is not None and user.state == users.ACTIVE and bool(permissions_of(user.role))


def by_email(tx: Transaction, text: str) -> UserRow | None:
    """Return the user with an address as it was typed, or None."""
    try:
        found = tx.users.find(email=users.parse_email(text))
    except InvalidInput:
        return None
    return found[0] if found else None


def try_password(tx: Transaction, email: str, counted: Counted) -> Tried:
    """Count a try and return what the password is to be compared with; raises SignInLocked."""
    lock_out.count_try(tx, counted)
    user = by_email(tx, email)
    return Tried(user, None if user is None else passwords.of_user(tx, user.id))


def accept_password(
    tx: Transaction, tried: Tried, counted: Counted, browser: Browser, entropy: Callable[[int], bytes]
) -> tuple[ConsoleSessionRow, str] | None:
    """Return a session that is open for the second step only, and its text; None where the account may not go on."""
    user = None if tried.user is None else tx.users.get(tried.user.id)
    if user is None or not may_sign_in(user) or passwords.of_user(tx, user.id) != tried.phc:
        return None
    lock_out.succeeded(tx, counted)
    stage = Stage.SECOND_FACTOR if second_factors.has_one(tx, user.id) else Stage.SET_UP
    return console_sessions.begin(tx, user, stage, address=browser.address, user_agent=browser.user_agent, entropy=entropy)


def refuse(tx: Transaction, actor: Actor, user: UserRow | None, counted: Counted | None, method: str) -> None:
    """Write down that somebody was not believed. What was typed as an account is not: it may have been a password."""
    targets = () if user is None else (user_target(user),)
    tx.record(AuditEvent(AuditAction.REFUSE, actor, targets, {"code": SignInRefused.code, "method": method}))
    if counted is not None:
        lock_out.record_lock_outs(tx, actor, counted, targets)


def complete(
    tx: Transaction, session: ConsoleSessionRow, user: UserRow, browser: Browser, method: str, entropy: Callable[[int], bytes]
) -> tuple[ConsoleSessionRow, str]:
    """Return the whole session under a new text. `method`: all that was proved, such as "password+totp".

    Call it before a factor that was set up is added. Raises SignInOver where the session has ended meanwhile, and where the
    first factor is set up for an account that has one: who knows the password alone must not add another.
    """
    if session.stage == Stage.SET_UP.value and second_factors.has_one(tx, user.id):
        raise SignInOver("this account has a second factor already", hint="sign in again, with it")
    changed, text = console_sessions.advance(tx, session, Stage.FULL, entropy)
    _record(tx, user, browser, method)
    return changed, text


def enter(
    tx: Transaction, user: UserRow, browser: Browser, method: str, entropy: Callable[[int], bytes]
) -> tuple[ConsoleSessionRow, str]:
    """Return a whole session of somebody who proved everything at once; raises SignInRefused."""
    if not may_sign_in(user):
        raise SignInRefused("this account may not use the console", hint="ask an admin")
    made = console_sessions.begin(tx, user, Stage.FULL, address=browser.address, user_agent=browser.user_agent, entropy=entropy)
    _record(tx, user, browser, method)
    return made


def _record(tx: Transaction, user: UserRow, browser: Browser, method: str) -> None:
    tx.record(AuditEvent(AuditAction.LOGIN, actor_of(user, browser), (user_target(user),), {"method": method}))


def actor_of(user: UserRow | None, browser: Browser) -> Actor:
    """Return who acts: the user, or somebody unknown."""
    if user is None:
        return Actor(ActorType.USER, source=browser.address)
    return Actor(ActorType.USER, str(user.id), user.email, browser.address)


def leave(tx: Transaction, session: ConsoleSessionRow, user: UserRow, browser: Browser) -> None:
    """End the session somebody is in."""
    console_sessions.end(tx, id=session.id)
    tx.record(AuditEvent(AuditAction.LOGOUT, actor_of(user, browser), (user_target(user),)))


def end_session(tx: Transaction, actor: Actor, user: UserRow, id: int) -> bool:
    """End one session of a user; returns whether there was one."""
    ended = console_sessions.end(tx, id=id, user_id=user.id)
    if ended:
        tx.record(AuditEvent(AuditAction.LOGOUT, actor, (user_target(user),), {"session": str(id)}))
    return bool(ended)


def end_sessions(tx: Transaction, actor: Actor, user: UserRow, *, but: int | None = None) -> int:
    """End all sessions of a user, except one; returns how many."""
    ended = 0
    for row in tx.console_sessions.find(user_id=user.id):
        if row.id != but:
            ended += console_sessions.end(tx, id=row.id)
    if ended:
        tx.record(AuditEvent(AuditAction.LOGOUT, actor, (user_target(user),), {"sessions": ended}))
    return ended


def record_proof(tx: Transaction, user: UserRow, browser: Browser, method: str) -> None:
    """Write down that somebody who is signed in has proved again who it is."""
    detail = {"method": method, "again": True}
    tx.record(AuditEvent(AuditAction.LOGIN, actor_of(user, browser), (user_target(user),), detail))


def refuse_identity(tx: Transaction, actor: Actor, issuer: str, why: str) -> None:
    """Write down that an answer of the identity provider was not believed, or let nobody in."""
    detail = {"code": IdentityRefused.code, "method": "identity provider", "issuer": issuer, "why": why}
    tx.record(AuditEvent(AuditAction.REFUSE, actor, (controller_target(f"sign-in by {issuer}"),), detail))


def count_stray_answer(tx: Transaction, actor: Actor, counted: Counted) -> None:
    """Count an answer of the identity provider that nobody asked for; raises SignInLocked."""
    lock_out.count_try(tx, counted)
    lock_out.record_lock_outs(tx, actor, counted, ())


def forget(tx: Transaction) -> None:
    """Remove what is too old to count: a part of housekeeping."""
    lock_out.forget(tx)
    used_challenges.forget(tx)
    sign_in_links.forget(tx)
