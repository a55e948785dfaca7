"""Service keys: made, renamed, revoked, deleted as the lifecycle of domain.service_key allows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from klinket.controller.app import cuts, sessions
from klinket.controller.app.audit import actor_detail, key_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.domain.account_limits import SeatsExceeded, check_seats
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.cut import CutScope
from klinket.domain.errors import InvalidInput, NotFound, ServiceKeyExpired, ServiceKeyRevoked
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import Kid
from klinket.domain.moments import iso
from klinket.domain.names import parse_name
from klinket.domain.service_key import KeyEvent, apply, expiry_from_days, warned_at_creation

KIND = "Service account key"
#: Expired keys that one transaction ends.
MAX_ENDED = 500


class KeyOrigin(Enum):
    """Who made the key pair: the controller, or its owner, who handed in the public half only."""

    CONTROLLER = "controller"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How a key may be used: `seats` at a time, None: as many as its account has; a canary key not at all."""

    seats: int | None = None
    exceeded: SeatsExceeded = SeatsExceeded.ALERT
    is_canary: bool = False

    def check(self) -> None:
        """Raise InvalidInput for what makes no sense."""
        check_seats(self.seats)
        if self.is_canary and self.seats is not None:
            raise InvalidInput("seats", "a canary key has no seats: nobody can log in with it")

    def as_detail(self) -> dict[str, Any]:
        """Return what the audit says of it; nothing for a key like all."""
        told: dict[str, Any] = {"canary": True} if self.is_canary else {}
        return told if self.seats is None else {**told, "seats": self.seats, "seatsExceeded": self.exceeded.value}


#: A key without seats of its own.
ORDINARY = KeyUse()


def get(tx: Transaction, id: int | None, shown_id: object) -> ServiceKeyRow:
    """Return the key; raises NotFound with the id as the caller wrote it."""
    row = tx.service_keys.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def account_of(tx: Transaction, row: ServiceKeyRow) -> ServiceAccountRow:
    """Return the account the key belongs to."""
    account = tx.service_accounts.get(row.service_account_id)
    assert account is not None  # a foreign key says so
    return account


def create(
    tx: Transaction,
    actor: Actor,
    account: ServiceAccountRow,
    *,
    days: int,
    name: str | None,
    kid: Kid,
    public_key: str,
    origin: KeyOrigin = KeyOrigin.CONTROLLER,
    use: KeyUse = ORDINARY,
) -> ServiceKeyRow:
    """Store the public half (PEM) of a new key that expires in `days`, 0: never. Raises InvalidInput."""
    use.check()
    expires_at = expiry_from_days(days, tx.now_ms / 1000)
    made_up = f"key {tx.service_keys.count(service_account_id=account.id) + 1} of {iso(tx.now_ms)[:10]}"
    row = tx.service_keys.add(
        name=made_up if name is None else parse_name(name),
        service_account_id=account.id,
        kid=kid,
        public_key=public_key,
        expires_at_ms=None if expires_at is None else round(expires_at * 1000),
        expiry_cut=False,
        origin=origin.value,
        created_by=actor_detail(actor),
        warned_days=warned_at_creation(days),
        seats=use.seats,
        seats_exceeded=use.exceeded.value,
        is_canary=use.is_canary,
    )
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (key_target(row, account, tx.now_ms),), use.as_detail()))
    return row


def set_seats(tx: Transaction, actor: Actor, row: ServiceKeyRow, seats: int | None, exceeded: SeatsExceeded) -> ServiceKeyRow:
    """Say how many sessions an active key may have at a time, None: as many as its account. Nothing that lives is ended.

    Raises LifecycleError, InvalidInput.
    """
    apply(row.state(tx.now_ms), KeyEvent.RENAME)
    use = KeyUse(seats, exceeded, row.is_canary)
    use.check()
    changed = tx.service_keys.change(row.id, seats=seats, seats_exceeded=exceeded.value)
    tx.bump()
    before = KeyUse(row.seats, SeatsExceeded(row.seats_exceeded)).as_detail()
    detail = {"seats": None, **use.as_detail(), "before": {"seats": None, **before}}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (key_target(changed, account_of(tx, row), tx.now_ms),), detail))
    return changed


def rename(tx: Transaction, actor: Actor, row: ServiceKeyRow, name: str) -> ServiceKeyRow:
    """Rename an active key; raises LifecycleError, InvalidInput."""
    apply(row.state(tx.now_ms), KeyEvent.RENAME)
    changed = tx.service_keys.change(row.id, name=parse_name(name))
    tx.bump()
    account = account_of(tx, row)
    before = {"before": key_target(row, account, tx.now_ms)}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (key_target(changed, account, tx.now_ms),), before))
    return changed


def revoke(tx: Transaction, actor: Actor, row: ServiceKeyRow) -> ServiceKeyRow:
    """Revoke an active key for good: its sessions and flows end at once. Raises LifecycleError."""
    apply(row.state(tx.now_ms), KeyEvent.REVOKE)
    changed = tx.service_keys.change(row.id, revoked_at_ms=tx.now_ms)
    account = account_of(tx, row)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (key_target(changed, account, tx.now_ms),)))
    _end(tx, actor, changed, FlowFailure.SERVICE_KEY_REVOKED, ServiceKeyRevoked.code)
    return changed


def delete(tx: Transaction, actor: Actor, row: ServiceKeyRow) -> None:
    """Delete a revoked or expired key; raises LifecycleError."""
    apply(row.state(tx.now_ms), KeyEvent.DELETE)
    account = account_of(tx, row)
    if row.revoked_at_ms is None and not row.expiry_cut:
        _end(tx, actor, row, FlowFailure.SERVICE_KEY_EXPIRED, ServiceKeyExpired.code)
    tx.service_keys.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (key_target(row, account, tx.now_ms, deleted=True),)))


def end_expired(tx: Transaction) -> int:
    """Order the cut of keys whose expiry has come since the last look, up to MAX_ENDED of them; returns how many."""
    over = tx.service_keys.until("expires_at_ms", tx.now_ms, MAX_ENDED, expiry_cut=False)
    for row in over:
        tx.service_keys.change(row.id, expiry_cut=True)
        if row.revoked_at_ms is None:  # what was revoked was cut then
            _end(tx, SYSTEM, row, FlowFailure.SERVICE_KEY_EXPIRED, ServiceKeyExpired.code)
    if over:
        tx.bump()  # also where no cut did: whoever waits for the next expiry has to look again
    return sum(row.revoked_at_ms is None for row in over)


def _end(tx: Transaction, actor: Actor, row: ServiceKeyRow, failure: FlowFailure, reason: str) -> None:
    sessions.end_all(tx, reason, service_key_id=row.id)
    granted = tx.access.find(service_account_id=row.service_account_id)
    networks = {one.remote_network_id for one in tx.resources.find(id=[access.resource_id for access in granted])}
    cuts.order(tx, CutScope.of_key(Kid(row.kid)), failure, actor, remote_networks=networks)
