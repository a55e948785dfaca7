"""Access: which service account may reach which resource, and until when."""

from __future__ import annotations

from klinket.controller.app import cuts
from klinket.controller.app.audit import account_target, resource_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import AccessRow, ResourceRow, ServiceAccountRow
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.connector import check_services_allowed
from klinket.domain.cut import CutScope
from klinket.domain.errors import InvalidInput
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ResourceId, ServiceAccountUuid
from klinket.domain.moments import iso

#: Milliseconds: access that ends by itself ends 1 hour to 1 year ahead (facts §4).
MIN_ACCESS_MS = 3_600_000
MAX_ACCESS_MS = 366 * 24 * 3_600_000
#: Rows that one transaction ends.
MAX_ENDED = 500


def versions_of(tx: Transaction, remote_network_id: int) -> list[tuple[str, str | None]]:
    """Return (name, reported version) of the remote network's connectors."""
    return [(row.name, row.version) for row in tx.connectors.find(remote_network_id=remote_network_id)]


def check_expiry(expires_at_ms: int | None, now_ms: int) -> None:
    """Raise InvalidInput unless access may end at this time."""
    if expires_at_ms is not None and not MIN_ACCESS_MS <= expires_at_ms - now_ms + 60_000 <= MAX_ACCESS_MS:
        raise InvalidInput("expiresAt", "expiresAt must be 1 hour to 1 year ahead")


def grant(
    tx: Transaction, actor: Actor, resource: ResourceRow, account: ServiceAccountRow, expires_at_ms: int | None = None
) -> AccessRow:
    """Let the account reach the resource, or change until when; raises ConnectorTooOld, InvalidInput."""
    check_services_allowed(versions_of(tx, resource.remote_network_id))
    found = tx.access.find(resource_id=resource.id, service_account_id=account.id)
    if found and found[0].expires_at_ms == expires_at_ms:
        return found[0]  # also when that end is near by now: clients send what they know again
    check_expiry(expires_at_ms, tx.now_ms)
    if found:
        row = tx.access.change(found[0].id, expires_at_ms=expires_at_ms)
    else:
        row = tx.access.add(resource_id=resource.id, service_account_id=account.id, expires_at_ms=expires_at_ms)
    tx.bump()
    expiry = {"expiresAt": iso(expires_at_ms) if expires_at_ms is not None else None}
    targets = (resource_target(resource), account_target(account))
    tx.record(AuditEvent(AuditAction.EDIT, actor, targets, {"access": "granted", **expiry}))
    return row


def revoke(
    tx: Transaction,
    actor: Actor,
    resource: ResourceRow,
    account: ServiceAccountRow,
    reason: FlowFailure = FlowFailure.CUT,
) -> None:
    """Take the resource away from the account; its flows there end at once. Nothing to take is no error."""
    if not tx.access.remove(resource_id=resource.id, service_account_id=account.id):
        return
    targets = (resource_target(resource), account_target(account))
    tx.record(AuditEvent(AuditAction.EDIT, actor, targets, {"access": "removed"}))
    cuts.order(
        tx,
        CutScope.of_access(ServiceAccountUuid(account.uuid), ResourceId(resource.id)),
        reason,
        actor,
        remote_networks=[resource.remote_network_id],
    )


def end_expired(tx: Transaction) -> int:
    """Take away access whose time is over, up to MAX_ENDED rows; returns how many."""
    over = tx.access.until("expires_at_ms", tx.now_ms, MAX_ENDED)
    for row in over:
        resource, account = tx.resources.get(row.resource_id), tx.service_accounts.get(row.service_account_id)
        assert resource is not None
        assert account is not None
        revoke(tx, SYSTEM, resource, account)
    return len(over)
