"""What keeps service keys fresh: their last use, rotation with an overlap, warnings before they expire."""

from __future__ import annotations

from klinket.controller.app import service_keys
from klinket.controller.app.audit import key_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ServiceKeyRow
from klinket.controller.app.service_keys import KeyOrigin, KeyUse
from klinket.domain.account_limits import SeatsExceeded
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.errors import Conflict, InvalidInput, LifecycleError
from klinket.domain.identifiers import Kid
from klinket.domain.moments import iso
from klinket.domain.printable import printable
from klinket.domain.service_key import SECONDS_PER_DAY, WARN_DAYS, KeyState, due_warning

#: Hours a rotated key goes on beside the new one, unless the new one is used before.
DEFAULT_OVERLAP_HOURS, MAX_OVERLAP_HOURS = 24, 24 * 30
#: Keys that one round of housekeeping warns of, or ends, at the most; the next round goes on.
MAX_A_ROUND = 500


def rotate(
    tx: Transaction,
    actor: Actor,
    old: ServiceKeyRow,
    *,
    days: int,
    overlap_hours: int,
    name: str | None,
    kid: Kid,
    public_key: str,
    origin: KeyOrigin = KeyOrigin.CONTROLLER,
) -> ServiceKeyRow:
    """Create the key that takes over from an active one, which is revoked at the first use of the new one or after the overlap.

    Raises LifecycleError, Conflict when the key is being replaced already, InvalidInput.
    """
    if old.state(tx.now_ms) is not KeyState.ACTIVE:
        raise LifecycleError("only an active key can be rotated", hint="generate a new key for the service account instead")
    if old.is_canary:
        raise LifecycleError("a canary key cannot be rotated", hint="generate another canary key, and delete this one")
    if tx.service_keys.find(replaces_key_id=old.id):
        raise Conflict(f"key {old.name!r} is being replaced already", hint="use the newer key, or revoke it first")
    if not 0 <= overlap_hours <= MAX_OVERLAP_HOURS:
        raise InvalidInput("overlapHours", f"overlapHours is 0 to {MAX_OVERLAP_HOURS}")
    account = service_keys.account_of(tx, old)
    made = service_keys.create(
        tx,
        actor,
        account,
        days=days,
        name=name or old.name,
        kid=kid,
        public_key=public_key,
        origin=origin,
        use=KeyUse(old.seats, SeatsExceeded(old.seats_exceeded)),
    )
    ends = tx.now_ms + overlap_hours * 3_600_000
    made = tx.service_keys.change(made.id, replaces_key_id=old.id, overlap_ends_ms=ends)
    detail = {"rotation": "begun", "replacedBy": {"id": str(made.id), "name": made.name}, "overlapEndsAt": iso(ends)}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (key_target(old, account, tx.now_ms),), detail))
    if overlap_hours == 0:
        _end_replaced(tx, made)
    return made


def used(tx: Transaction, key: ServiceKeyRow, *, hostname: str, address: str, client_version: str) -> None:
    """Note a login with a key; the first use of a key that takes over from another ends the other."""
    tx.service_keys.change(
        key.id,
        last_used_ms=tx.now_ms,
        last_used_by={
            "hostname": printable(hostname[:255]),
            "address": address[:45],
            "clientVersion": printable(client_version[:100]),
        },
        updated_at_ms=key.updated_at_ms,  # a login changes nothing that admins have set
    )
    if key.replaces_key_id is not None:
        _end_replaced(tx, key)


def end_overlaps(tx: Transaction) -> int:
    """Revoke keys whose replacement was not used before the overlap ended; returns how many were looked at."""
    due = [key for key in tx.service_keys.after("overlap_ends_ms", 0, MAX_A_ROUND) if (key.overlap_ends_ms or 0) <= tx.now_ms]
    for key in due:
        _end_replaced(tx, key)
    return len(due)


def _end_replaced(tx: Transaction, new: ServiceKeyRow) -> None:
    old = tx.service_keys.get(new.replaces_key_id) if new.replaces_key_id is not None else None
    tx.service_keys.change(new.id, replaces_key_id=None, overlap_ends_ms=None, updated_at_ms=new.updated_at_ms)
    if old is not None and old.state(tx.now_ms) is KeyState.ACTIVE:
        service_keys.revoke(tx, SYSTEM, old)


def warn_of_expiry(tx: Transaction) -> list[ServiceKeyRow]:
    """Record one warning for each active key that comes within WARN_DAYS of its expiry; returns these keys."""
    warned: list[ServiceKeyRow] = []
    for days in sorted(WARN_DAYS):
        until = tx.now_ms + days * SECONDS_PER_DAY * 1000
        earlier = [other for other in WARN_DAYS if other > days]
        for last in (None, *earlier):
            room = MAX_A_ROUND - len(warned)
            near = tx.service_keys.after("expires_at_ms", tx.now_ms, room, revoked_at_ms=None, warned_days=last)
            for key in near:
                if key.expires_at_ms is not None and key.expires_at_ms <= until:
                    warned.append(_warn(tx, key))
    return warned


def _warn(tx: Transaction, key: ServiceKeyRow) -> ServiceKeyRow:
    expires_at_ms = key.expires_at_ms
    assert expires_at_ms is not None
    days = due_warning(expires_at_ms / 1000, key.warned_days, tx.now_ms / 1000)
    changed = tx.service_keys.change(key.id, warned_days=days, updated_at_ms=key.updated_at_ms)
    target = key_target(changed, service_keys.account_of(tx, key), tx.now_ms)
    detail = {"expiresAt": iso(expires_at_ms), "withinDays": days}
    tx.record(AuditEvent(AuditAction.WARN, SYSTEM, (target,), detail))
    return changed


def expiring_counts(tx: Transaction) -> dict[int, int]:
    """Return how many active keys expire within each of WARN_DAYS."""

    def within(days: int) -> int:
        until = tx.now_ms + days * SECONDS_PER_DAY * 1000
        return len(
            tx.service_keys.matching(
                "", (), least={"expires_at_ms": tx.now_ms + 1}, below={"expires_at_ms": until + 1}, revoked_at_ms=None
            )
        )

    return {days: within(days) for days in WARN_DAYS}
