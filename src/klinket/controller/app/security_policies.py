"""Security policies. They apply to users, never to services (facts §1, §8); klinket stores which one applies where."""

from __future__ import annotations

from klinket.controller.app.audit import policy_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import GroupRow, SecurityPolicyRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, NotFound
from klinket.domain.names import parse_name

KIND = "Security policy"
#: The policy that is always there, and applies where no other does.
DEFAULT_NAME = "Default Policy"


def get(tx: Transaction, id: int | None, shown_id: object) -> SecurityPolicyRow:
    """Return the policy; raises NotFound with the id as the caller wrote it."""
    row = tx.security_policies.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def ensure_default(tx: Transaction) -> SecurityPolicyRow:
    """Return the default policy, made where it is missing."""
    found = tx.security_policies.find(name=DEFAULT_NAME)
    return found[0] if found else tx.security_policies.add(name=DEFAULT_NAME, policy_type="RESOURCE")


def create(tx: Transaction, actor: Actor, *, name: str) -> SecurityPolicyRow:
    """Create a policy; raises InvalidInput, Conflict."""
    row = tx.security_policies.add(name=parse_name(name), policy_type="RESOURCE")
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (policy_target(row),)))
    return row


def delete(tx: Transaction, actor: Actor, row: SecurityPolicyRow) -> None:
    """Delete a policy that nothing uses; raises Conflict for the default one and for one in use."""
    if row.name == DEFAULT_NAME:
        raise Conflict("the default policy cannot be deleted")
    used = [
        (tx.groups.count(security_policy_id=row.id), "groups"),
        (tx.resources.count(security_policy_id=row.id), "resources"),
        (tx.group_access.count(security_policy_id=row.id), "accesses of groups"),
    ]
    told = ", ".join(f"{count} {what}" for count, what in used if count)
    if told:
        raise Conflict(f"the policy {row.name!r} is in use by {told}", hint="take it away there first")
    tx.security_policies.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (policy_target(row),)))


def rename(tx: Transaction, actor: Actor, row: SecurityPolicyRow, name: str) -> SecurityPolicyRow:
    """Give a policy another name; raises InvalidInput, and Conflict for the default one and a name that is taken."""
    wanted = parse_name(name)
    if wanted == row.name:
        return row
    if row.name == DEFAULT_NAME:
        raise Conflict("the default policy cannot be renamed")
    changed = tx.security_policies.change(row.id, name=wanted)
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (policy_target(changed),), {"before": policy_target(row)}))
    return changed


def withdraw(tx: Transaction, actor: Actor, row: SecurityPolicyRow, group: GroupRow) -> None:
    """Take the policy from one group, which falls back to the resource's; nothing to take is no error."""
    assign(tx, actor, row, [one for one in tx.groups.find(security_policy_id=row.id) if one.id != group.id])


def assign(tx: Transaction, actor: Actor, row: SecurityPolicyRow, groups: list[GroupRow]) -> None:
    """Make this the policy of exactly these groups; those that lose it fall back to the resource's."""
    wanted = {group.id for group in groups}
    before = tx.groups.find(security_policy_id=row.id)
    for group in before:
        if group.id not in wanted:
            tx.groups.change(group.id, security_policy_id=None)
    for group in groups:
        if group.security_policy_id != row.id:
            tx.groups.change(group.id, security_policy_id=row.id)
    if {group.id for group in before} != wanted:
        tx.bump()
        detail = {"groups": sorted(wanted)}
        tx.record(AuditEvent(AuditAction.EDIT, actor, (policy_target(row),), detail))
