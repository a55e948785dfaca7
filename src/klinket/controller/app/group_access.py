"""Access of groups to resources, with settings of its own for each (facts §4, §8)."""

from __future__ import annotations

from typing import Any

from klinket.controller.app.access import MAX_ENDED, check_expiry
from klinket.controller.app.audit import group_target, resource_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import GroupAccessRow, GroupRow, ResourceRow
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent


def grant(tx: Transaction, actor: Actor, resource: ResourceRow, group: GroupRow, **settings: Any) -> GroupAccessRow:
    """Let the group's users reach the resource, or change the settings: the columns of GroupAccessRow. Raises InvalidInput."""
    found = tx.group_access.find(resource_id=resource.id, group_id=group.id)
    if found and all(getattr(found[0], name) == value for name, value in settings.items()):
        return found[0]
    if not found or found[0].expires_at_ms != settings.get("expires_at_ms"):
        check_expiry(settings.get("expires_at_ms"), tx.now_ms)  # the end it has already may be said again, however near it is
    if found:
        row = tx.group_access.change(found[0].id, **settings)
    else:
        row = tx.group_access.add(resource_id=resource.id, group_id=group.id, **settings)
    tx.bump()
    targets = (resource_target(resource), group_target(group))
    tx.record(AuditEvent(AuditAction.EDIT, actor, targets, {"access": "granted"}))
    return row


def revoke(tx: Transaction, actor: Actor, resource: ResourceRow, group: GroupRow) -> None:
    """Take the resource away from the group; nothing to take is no error."""
    if tx.group_access.remove(resource_id=resource.id, group_id=group.id):
        tx.bump()
        targets = (resource_target(resource), group_target(group))
        tx.record(AuditEvent(AuditAction.EDIT, actor, targets, {"access": "removed"}))


def end_expired(tx: Transaction) -> int:
    """Take away access whose time is over, up to MAX_ENDED rows; returns how many."""
    over = tx.group_access.until("expires_at_ms", tx.now_ms, MAX_ENDED)
    for row in over:
        resource, group = tx.resources.get(row.resource_id), tx.groups.get(row.group_id)
        assert resource is not None
        assert group is not None
        revoke(tx, SYSTEM, resource, group)
    return len(over)
