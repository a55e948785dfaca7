"""Sessions: one logged-in client process each. A login is believed, and its session made, in one transaction."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from klinket.controller.app import cuts, key_seats
from klinket.controller.app.audit import key_target, session_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow, SessionRow
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.cut import CutScope
from klinket.domain.errors import (
    AssertionReplayed,
    Conflict,
    NotFound,
    ServiceKeyExpired,
    ServiceKeyRevoked,
    ServiceKeyUnknown,
    SessionOver,
)
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import Kid, SessionId
from klinket.domain.printable import printable
from klinket.domain.service_key import KeyState
from klinket.wire.assertion import Assertion

#: The same words whatever is wrong.
UNKNOWN_KEY = "no such service key"
#: Milliseconds after its end, or after its last possible certificate, at which a session is forgotten.
FORGET_SESSION_MS = 7 * 24 * 3_600_000
#: Lost sessions that one round of housekeeping ends.
MAX_LOST = 500
ENDED_BY_ADMIN = "ended by an admin"
ENDED_BY_CLIENT = "the client has ended"
LOGOUT = "logout"


def key_for_login(tx: Transaction, kid: Kid) -> tuple[ServiceKeyRow, ServiceAccountRow]:
    """Return key and account a login names, usable or not: that is told to the key's holder only. Raises ServiceKeyUnknown."""
    found = tx.service_keys.find(kid=kid)
    if not found:
        raise ServiceKeyUnknown(UNKNOWN_KEY)
    row = found[0]
    account = tx.service_accounts.get(row.service_account_id)
    if account is None:
        raise ServiceKeyUnknown(UNKNOWN_KEY)
    return row, account


def check_usable(row: ServiceKeyRow, now_ms: int) -> None:
    """Raise ServiceKeyRevoked or ServiceKeyExpired unless the key is active; ServiceKeyUnknown for a canary key."""
    if row.is_canary:
        raise ServiceKeyUnknown(UNKNOWN_KEY)
    state = row.state(now_ms)
    if state is KeyState.REVOKED:
        raise ServiceKeyRevoked(f"service key {row.name!r} was revoked")
    if state is KeyState.EXPIRED:
        raise ServiceKeyExpired(f"service key {row.name!r} has expired")


def begin(
    tx: Transaction,
    assertion: Assertion,
    session: SessionId,
    *,
    hostname: str,
    client_version: str,
    address: str,
    attached: Collection[str],
) -> tuple[SessionRow, ServiceKeyRow, ServiceAccountRow]:
    """Make the session of a verified assertion; rechecks the key, and refuses a replay by the database's own rule.

    `attached`: sessions that hold their seats however old they are (key_seats).

    Raises ServiceKeyUnknown, ServiceKeyRevoked, ServiceKeyExpired, AssertionReplayed, Throttled.
    """
    key, account = key_for_login(tx, assertion.kid)
    check_usable(key, tx.now_ms)
    tx.used_assertions.remove_below("expires_at_ms", tx.now_ms - 60_000)
    try:
        tx.used_assertions.add(kid=assertion.kid, jti=assertion.jti, expires_at_ms=round(assertion.expires_at * 1000))
    except Conflict as error:
        raise AssertionReplayed("this login assertion was used already") from error
    beyond = key_seats.check(tx, key, account, attached)
    row = tx.sessions.add(
        id=session,
        service_account_id=account.id,
        service_key_id=key.id,
        jkt=assertion.jkt,
        hostname=printable(hostname[:255]),
        client_version=printable(client_version[:100]),
        address=address[:45],
    )
    actor = Actor(SYSTEM.type, id=account.uuid, name=account.name, source=address)
    target = key_target(key, account, tx.now_ms)
    tx.record(AuditEvent(AuditAction.LOGIN, actor, (target,), {"session": session, "hostname": row.hostname}))
    if beyond:
        key_seats.alert(tx, key, account, row, beyond)
    return row, key, account


def seat_late(tx: Transaction, session: SessionId, attached: Collection[str]) -> None:
    """Check the seats again for a session whose login no longer holds one, and that attaches for the first time.

    Raises Throttled, SessionOver, or what is wrong with its key.
    """
    row, key, account = live(tx, session)
    beyond = key_seats.check(tx, key, account, attached)
    if beyond:
        key_seats.alert(tx, key, account, row, beyond)


def record_refusal(tx: Transaction, kid: Kid, code: str, address: str, limit: str = "") -> None:
    """Write the audit event of a login that was refused, when it names a key that exists. `limit`: the one that was used up."""
    for key in tx.service_keys.find(kid=kid, is_canary=False):  # what happens to a canary key is an alarm
        account = tx.service_accounts.get(key.service_account_id)
        if account is not None:
            actor = Actor(SYSTEM.type, id=account.uuid, name=account.name, source=address)
            detail = {"code": code, "limit": limit} if limit else {"code": code}
            tx.record(AuditEvent(AuditAction.REFUSE, actor, (key_target(key, account, tx.now_ms),), detail))


def live(tx: Transaction, session: SessionId) -> tuple[SessionRow, ServiceKeyRow, ServiceAccountRow]:
    """Return a session that may go on; raises SessionOver, or what is wrong with its key."""
    row = tx.sessions.get(session)
    if row is None:
        raise SessionOver("this session is not known here")
    key = tx.service_keys.get(row.service_key_id)
    account = tx.service_accounts.get(row.service_account_id)
    if key is None or account is None:
        raise ServiceKeyUnknown("the service key was deleted")
    check_usable(key, tx.now_ms)
    if row.ended_at_ms is not None:
        raise SessionOver(f"the session has ended: {row.end_reason}")
    return row, key, account


def end(tx: Transaction, session: SessionId, reason: str, address: str, *, cut: bool) -> None:
    """End one session for whoever holds it, if it is live. `cut`: flows of it may live, and end with it."""
    row = tx.sessions.get(session)
    if row is None or row.ended_at_ms is not None:
        return
    tx.sessions.change(session, ended_at_ms=tx.now_ms, end_reason=reason)
    account = tx.service_accounts.get(row.service_account_id)
    name = None if account is None else account.name
    actor = Actor(SYSTEM.type, id=None if account is None else account.uuid, name=name, source=address)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (session_target(row),), {"session": "ended", "reason": reason}))
    if cut:
        _cut(tx, actor, row)
    else:
        tx.bump()


def _cut(tx: Transaction, actor: Actor, row: SessionRow) -> None:
    granted = tx.access.find(service_account_id=row.service_account_id)
    networks = {one.remote_network_id for one in tx.resources.find(id=[access.resource_id for access in granted])}
    cuts.order(tx, CutScope.of_session(SessionId(row.id)), FlowFailure.CUT, actor, remote_networks=networks)


def end_by_admin(tx: Transaction, actor: Actor, shown_id: str) -> SessionRow:
    """End a live session and cut its flows; one that has ended already stays as it is. Raises NotFound."""
    row = tx.sessions.get(shown_id)
    if row is None:
        raise NotFound("Session", shown_id)
    if row.ended_at_ms is not None:
        return row
    changed = tx.sessions.change(row.id, ended_at_ms=tx.now_ms, end_reason=ENDED_BY_ADMIN)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (session_target(row),), {"session": "ended", "reason": ENDED_BY_ADMIN}))
    _cut(tx, actor, row)
    return changed


def end_all(tx: Transaction, reason: str, **equal: Any) -> None:
    """End every live session that meets the conditions."""
    for row in tx.sessions.find(ended_at_ms=None, **equal):
        tx.sessions.change(row.id, ended_at_ms=tx.now_ms, end_reason=reason)


def end_lost(tx: Transaction, last_seen_before_ms: int, alive: set[str]) -> int:
    """End sessions that were made before a time and are not attached now, up to MAX_LOST of them; returns how many."""
    old = tx.sessions.until("created_at_ms", last_seen_before_ms, MAX_LOST + len(alive), ended_at_ms=None)
    lost = [row for row in old if row.id not in alive]
    for row in lost:
        tx.sessions.change(row.id, ended_at_ms=tx.now_ms, end_reason="lost")
        tx.record(AuditEvent(AuditAction.EDIT, SYSTEM, (session_target(row),), {"session": "ended", "reason": "lost"}))
    tx.sessions.remove_below("ended_at_ms", tx.now_ms - FORGET_SESSION_MS)
    return len(lost)
