"""Seats: how many sessions may be logged in with one key, or one account, at a time; and keys that nobody may use."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from klinket.controller.app import account_limits
from klinket.controller.app.audit import key_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow, SessionRow
from klinket.domain.account_limits import SeatsExceeded
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.errors import Throttled

#: Milliseconds after which the seat of a session that is not attached is free again.
SEAT_MS = 60_000
#: Seconds after which somebody is told to look again whose seats are all held by attached sessions.
ATTACHED_RETRY_SECONDS = 60.0
#: Seconds that `--timeout` should have beyond the wait, to log in and attach.
WAITING_SECONDS = 30.0
#: Sessions that an alert names, the newest.
MAX_NAMED = 10


def holders(tx: Transaction, account: int, attached: Collection[str]) -> list[SessionRow]:
    """Return the sessions of an account that hold a seat: attached ones, and those younger than SEAT_MS."""
    rows = tx.sessions.find(service_account_id=account, ended_at_ms=None)
    return [row for row in rows if row.id in attached or row.created_at_ms > tx.now_ms - SEAT_MS]


def check(tx: Transaction, key: ServiceKeyRow, account: ServiceAccountRow, attached: Collection[str]) -> list[SessionRow]:
    """Raise Throttled where the account, or a key that refuses, has no seat for one more session.

    Return the sessions that have taken all seats of a key that alerts; mostly none.
    """
    live = holders(tx, account.id, attached)
    most = account_limits.of(tx, account.id).max_sessions
    if len(live) >= most:
        raise _refused(
            tx, f"service account {account.name!r} has {len(live)} sessions, its limit is {most}", live, attached, "sessions"
        )
    if key.seats is None:
        return []
    own = [row for row in live if row.service_key_id == key.id]
    if len(own) < key.seats:
        return []
    if key.seats_exceeded == SeatsExceeded.REFUSE.value:
        holding = "one session holds it" if key.seats == len(own) == 1 else f"{len(own)} sessions hold one"
        seats = "one seat" if key.seats == 1 else f"{key.seats} seats"
        raise _refused(tx, f"service key {key.name!r} has {seats}, and {holding}", own, attached, "seats")
    return own


def _refused(tx: Transaction, text: str, held: Sequence[SessionRow], attached: Collection[str], limit: str) -> Throttled:
    leaving = [row.created_at_ms + SEAT_MS - tx.now_ms for row in held if row.id not in attached]
    wait = max(1.0, min(leaving) / 1000) if leaving else ATTACHED_RETRY_SECONDS
    when = f"one may be free in {wait:.0f} s" if leaving else "one is free when a session ends"
    more = "give the key more: klinket admin service key seats" if limit == "seats" else "raise it: klinket admin service limits"
    hint = f"try again in {wait:.0f} s, or let klinket wait: --timeout {wait + WAITING_SECONDS:.0f}; or {more}"
    return Throttled(f"{text}; {when}", hint=hint, retry_after=wait, limit=limit)


def alert(
    tx: Transaction, key: ServiceKeyRow, account: ServiceAccountRow, session: SessionRow, others: Sequence[SessionRow]
) -> None:
    """Write the warning that a key is used by more sessions than it has seats for: it may be in two places."""
    actor = Actor(SYSTEM.type, id=account.uuid, name=account.name, source=session.address)
    detail = {
        "code": "seats-exceeded",
        "seats": key.seats,
        "sessions": len(others) + 1,
        "session": session.id,
        "hostname": session.hostname,
        "others": [
            {"session": row.id, "hostname": row.hostname, "address": row.address}
            for row in sorted(others, key=lambda row: row.created_at_ms, reverse=True)[:MAX_NAMED]
        ],
    }
    tx.record(AuditEvent(AuditAction.WARN, actor, (key_target(key, account, tx.now_ms),), detail))


def alarm(tx: Transaction, key: ServiceKeyRow, account: ServiceAccountRow, address: str, *, attempt: str, signed: bool) -> None:
    """Write the alarm that somebody has tried a canary key. `signed`: with its private key; else with its id only."""
    actor = Actor(SYSTEM.type, name="whoever holds a canary key", source=address)
    detail = {"code": "canary-key", "attempt": attempt, "signed": signed}
    tx.record(AuditEvent(AuditAction.ALARM, actor, (key_target(key, account, tx.now_ms),), detail))
