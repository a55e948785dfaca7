"""Users: people, who get resources through groups. Services need none of it."""

from __future__ import annotations

import re

from klinket.controller.app import second_factors
from klinket.controller.app.audit import user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import UserRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, InvalidInput, NotFound
from klinket.domain.names import parse_name

KIND = "User"
PENDING, ACTIVE, DISABLED = "PENDING", "ACTIVE", "DISABLED"
MANUAL = "MANUAL"
#: The role that may do everything.
ADMIN = "ADMIN"
#: Every role, the mightiest first.
ROLES = (ADMIN, "DEVOPS", "SUPPORT", "ACCESS_REVIEWER", "MEMBER")
MAX_EMAIL_CHARS = 254
_EMAIL = re.compile(r"[^\s@<>\"(),:;]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


def get(tx: Transaction, id: int | None, shown_id: object) -> UserRow:
    """Return the user; raises NotFound with the id as the caller wrote it."""
    row = tx.users.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def parse_email(text: str) -> str:
    """Return the address in lower case; raises InvalidInput("email").

    ASCII alone: some other characters, such as the Kelvin sign, become ASCII letters in lower case, and so somebody else.
    """
    if not text.isascii():
        raise InvalidInput("email", "email must be an address of ASCII characters, like name@example.com")
    email = text.strip().lower()
    if len(email) > MAX_EMAIL_CHARS or not _EMAIL.fullmatch(email):
        raise InvalidInput("email", "email must be an address like name@example.com")
    return email


def parse_person(text: str | None, field: str) -> str | None:
    """Return a first or last name, None for an empty one; raises InvalidInput naming `field`."""
    return parse_name(text, field) if text and text.strip() else None


def create(tx: Transaction, actor: Actor, *, email: str, first_name: str | None, last_name: str | None, role: str) -> UserRow:
    """Invite a user, who is PENDING until the first sign-in; raises InvalidInput, Conflict."""
    _check_role(role)
    row = tx.users.add(
        email=parse_email(email),
        first_name=parse_person(first_name, "firstName"),
        last_name=parse_person(last_name, "lastName"),
        state=PENDING,
        role=role,
        user_type=MANUAL,
    )
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (user_target(row),)))
    return row


def update(
    tx: Transaction, actor: Actor, row: UserRow, *, first_name: str | None, last_name: str | None, state: str | None
) -> UserRow:
    """Change what is given; raises InvalidInput, and Conflict for the state of the last admin, or of who has not signed in."""
    if state is not None and row.state == PENDING:
        raise Conflict("User in PENDING state: the state can change after the first sign-in")
    if state not in (None, ACTIVE, DISABLED):
        raise InvalidInput("state", f"state is {ACTIVE} or {DISABLED}")
    if state is not None and state != ACTIVE:
        _check_admin_remains(tx, row)
    if state == DISABLED:
        tx.console_sessions.remove(user_id=row.id)
    return _changed(
        tx,
        actor,
        row,
        first_name=row.first_name if first_name is None else parse_person(first_name, "firstName"),
        last_name=row.last_name if last_name is None else parse_person(last_name, "lastName"),
        state=row.state if state is None else state,
    )


def set_role(tx: Transaction, actor: Actor, row: UserRow, role: str) -> UserRow:
    """Give a user another role; raises InvalidInput, and Conflict where nobody would be left to undo it."""
    _check_role(role)
    if role != ADMIN:
        _check_admin_remains(tx, row)
    return _changed(tx, actor, row, role=role)


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InvalidInput("role", f"role is one of {', '.join(ROLES)}")


def _check_admin_remains(tx: Transaction, row: UserRow) -> None:
    """Raise Conflict if this is the only active admin: without one nobody could undo anything."""
    if (row.role, row.state) == (ADMIN, ACTIVE) and tx.users.count(role=ADMIN, state=ACTIVE) == 1:
        raise Conflict(
            f"{row.email} is the only active user with the role ADMIN", hint="let another user be ADMIN and sign in first"
        )


def _changed(tx: Transaction, actor: Actor, row: UserRow, **values: object) -> UserRow:
    changed = tx.users.change(row.id, **values)
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(changed),), {"before": user_target(row)}))
    return changed


def reset_second_factor(tx: Transaction, actor: Actor, row: UserRow) -> None:
    """Let a user set up a second factor anew, through a one-time link; recovery codes, passkeys and sessions end.

    The password goes too: who knows it alone must not be the one who sets up the factor.
    """
    second_factors.remove_all(tx, row.id)
    tx.passwords.remove(user_id=row.id)
    tx.console_sessions.remove(user_id=row.id)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(row),), {"secondFactor": "reset"}))


def delete(tx: Transaction, actor: Actor, row: UserRow) -> None:
    """Delete a user with the memberships; devices stay, without an owner. Raises Conflict for the last admin."""
    _check_admin_remains(tx, row)
    tx.group_members.remove(user_id=row.id)
    for device in tx.devices.find(user_id=row.id):
        tx.devices.change(device.id, user_id=None)
    tx.users.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (user_target(row),)))
