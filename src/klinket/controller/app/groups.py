"""Groups: how users get resources (facts §8). MANUAL ones are edited here, SYSTEM and SYNCED ones are not."""

from __future__ import annotations

from collections.abc import Collection

from klinket.controller.app.audit import group_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import GroupRow, UserRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, NotFound
from klinket.domain.names import parse_name

KIND = "Group"
MANUAL, SYNCED, SYSTEM = "MANUAL", "SYNCED", "SYSTEM"
#: The group of all users.
EVERYONE = "Everyone"


def get(tx: Transaction, id: int | None, shown_id: object) -> GroupRow:
    """Return the group; raises NotFound with the id as the caller wrote it."""
    row = tx.groups.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def ensure_everyone(tx: Transaction) -> GroupRow:
    """Return the group of all users, made where it is missing."""
    found = tx.groups.find(group_type=SYSTEM)
    return found[0] if found else tx.groups.add(name=EVERYONE, is_active=True, group_type=SYSTEM)


def create(tx: Transaction, actor: Actor, *, name: str, security_policy_id: int | None) -> GroupRow:
    """Create an empty manual group; raises InvalidInput, Conflict."""
    row = tx.groups.add(name=parse_name(name), is_active=True, group_type=MANUAL, security_policy_id=security_policy_id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (group_target(row),)))
    return row


def check_editable(row: GroupRow) -> None:
    """Raise Conflict unless name, state and members may be changed here."""
    if row.group_type == SYSTEM:
        raise Conflict(f"the group {row.name!r} is of type SYSTEM and cannot be edited")
    if row.group_type == SYNCED:
        raise Conflict(f"the group {row.name!r} is synced: edit it at the identity provider")


def update(
    tx: Transaction, actor: Actor, row: GroupRow, *, name: str | None, is_active: bool | None, security_policy_id: int | None
) -> GroupRow:
    """Change what is given; raises InvalidInput, Conflict."""
    if (name is not None and name != row.name) or (is_active is not None and is_active != row.is_active):
        check_editable(row)
    changed = tx.groups.change(
        row.id,
        name=row.name if name is None else parse_name(name),
        is_active=row.is_active if is_active is None else is_active,
        security_policy_id=row.security_policy_id if security_policy_id is None else security_policy_id,
    )
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (group_target(changed),), {"before": group_target(row)}))
    return changed


def member_ids(tx: Transaction, row: GroupRow) -> set[int]:
    """Return the ids of the group's users; everybody's for the system group."""
    if row.group_type == SYSTEM:
        return {user.id for user in tx.users.find()}
    return {member.user_id for member in tx.group_members.find(group_id=row.id)}


def set_members(tx: Transaction, actor: Actor, row: GroupRow, users: Collection[int]) -> None:
    """Make exactly these users the members; raises Conflict where members are not edited here."""
    before = member_ids(tx, row)
    wanted = set(users)
    if before == wanted:
        return
    check_editable(row)
    for user in before - wanted:
        tx.group_members.remove(group_id=row.id, user_id=user)
    for user in sorted(wanted - before):
        tx.group_members.add(group_id=row.id, user_id=user)
    tx.bump()
    detail = {"added": sorted(wanted - before), "removed": sorted(before - wanted)}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (group_target(row),), {"users": detail}))


def of_user(tx: Transaction, user: UserRow) -> list[GroupRow]:
    """Return the groups a user is in, by id."""
    ids = {member.group_id for member in tx.group_members.find(user_id=user.id)}
    return [row for row in tx.groups.find() if row.id in ids or row.group_type == SYSTEM]


def delete(tx: Transaction, actor: Actor, row: GroupRow) -> None:
    """Delete a group with its memberships and access; raises Conflict for a system or synced one."""
    check_editable(row)
    tx.group_members.remove(group_id=row.id)
    tx.group_access.remove(group_id=row.id)
    tx.groups.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (group_target(row),)))
