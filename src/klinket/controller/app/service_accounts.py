"""Service accounts ("Services")."""

from __future__ import annotations

from klinket.controller.app import account_limits, cuts, sessions
from klinket.controller.app.audit import account_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ServiceAccountRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.cut import CutScope
from klinket.domain.errors import NotFound, ServiceKeyUnknown
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ServiceAccountUuid
from klinket.domain.names import parse_name

KIND = "Service account"


def get(tx: Transaction, id: int | None, shown_id: object) -> ServiceAccountRow:
    """Return the service account; raises NotFound with the id as the caller wrote it."""
    row = tx.service_accounts.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def create(tx: Transaction, actor: Actor, *, name: str, uuid: str) -> ServiceAccountRow:
    """Create a service account; raises InvalidInput, Conflict."""
    row = tx.service_accounts.add(name=parse_name(name), uuid=uuid)
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (account_target(row),)))
    return row


def rename(tx: Transaction, actor: Actor, row: ServiceAccountRow, name: str) -> ServiceAccountRow:
    """Rename a service account; raises InvalidInput, Conflict."""
    changed = tx.service_accounts.change(row.id, name=parse_name(name))
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (account_target(changed),), {"before": account_target(row)}))
    return changed


def delete(tx: Transaction, actor: Actor, row: ServiceAccountRow) -> None:
    """Delete a service account with its keys and access; its sessions and flows end at once."""
    networks = {
        resource.remote_network_id
        for resource in tx.resources.find(id=[access.resource_id for access in tx.access.find(service_account_id=row.id)])
    }
    sessions.end_all(tx, ServiceKeyUnknown.code, service_account_id=row.id)
    tx.access.remove(service_account_id=row.id)
    account_limits.forget(tx, row.id)
    tx.service_keys.remove(service_account_id=row.id)
    tx.service_accounts.remove(id=row.id)
    tx.record(AuditEvent(AuditAction.DELETE, actor, (account_target(row),)))
    scope = CutScope.of_account(ServiceAccountUuid(row.uuid))
    cuts.order(tx, scope, FlowFailure.SERVICE_KEY_REVOKED, actor, remote_networks=networks)
