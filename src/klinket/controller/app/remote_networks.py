"""Remote networks."""

from __future__ import annotations

from klinket.controller.app import cuts
from klinket.controller.app.audit import network_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.cut import CutScope
from klinket.domain.errors import Conflict, NotFound
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ResourceId
from klinket.domain.names import parse_name

KIND = "Remote network"


def get(tx: Transaction, id: int | None, shown_id: object) -> RemoteNetworkRow:
    """Return the remote network; raises NotFound with the id as the caller wrote it."""
    row = tx.remote_networks.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def create(tx: Transaction, actor: Actor, *, name: str, location: str, network_type: str, is_active: bool) -> RemoteNetworkRow:
    """Create a remote network; raises InvalidInput, Conflict."""
    row = tx.remote_networks.add(name=parse_name(name), location=location, network_type=network_type, is_active=is_active)
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (network_target(row),)))
    return row


def update(
    tx: Transaction, actor: Actor, row: RemoteNetworkRow, *, name: str | None, location: str | None, is_active: bool | None
) -> RemoteNetworkRow:
    """Change what is given; raises InvalidInput, Conflict. Flows to the resources of a disabled network end at once."""
    changed = tx.remote_networks.change(
        row.id,
        name=row.name if name is None else parse_name(name),
        location=location or row.location,
        is_active=row.is_active if is_active is None else is_active,
    )
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (network_target(changed),), {"before": network_target(row)}))
    if row.is_active and not changed.is_active:
        for resource in tx.resources.find(remote_network_id=row.id, is_active=True):
            cuts.order(tx, CutScope.of_resource(ResourceId(resource.id)), FlowFailure.CUT, actor, remote_networks=[row.id])
    return changed


def delete(tx: Transaction, actor: Actor, row: RemoteNetworkRow) -> None:
    """Delete an empty remote network; raises Conflict while it has connectors or resources."""
    connectors, resources = tx.connectors.find(remote_network_id=row.id), tx.resources.find(remote_network_id=row.id)
    if connectors or resources:
        raise Conflict(
            f"the remote network still has {len(connectors)} connectors and {len(resources)} resources",
            hint="delete these first",
        )
    tx.remote_networks.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (network_target(row),)))
