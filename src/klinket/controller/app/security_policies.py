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
    tx.security_policies.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (policy_target(row),)))


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
