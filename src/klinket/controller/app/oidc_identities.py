"""Who an identity provider's accounts are here (OpenID Connect): found by issuer and subject, never by e-mail address alone.

The address counts once, when an account comes for the first time; then only where the provider has verified it, only in
domains that were listed, and only for a user without a password, an authenticator app or a passkey.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from klinket.controller.app import second_factors, users
from klinket.controller.app.audit import user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import UserRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import IdentityRefused, InvalidInput, NotFound
from klinket.domain.role import permissions_of

#: From the one that may do most to the one that may do least: of several that are mapped the first counts.
ROLES = ("ADMIN", "DEVOPS", "SUPPORT", "MEMBER")
MAX_SUBJECT_CHARS = 255
KIND = "Linked account"


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """Which accounts are let in. `domains`: of e-mail addresses; `roles`: values of the role claim and the roles they give.

    Without `roles` nobody's role is changed. `new_role`: of users that are made when they come; None: none are made.
    """

    domains: frozenset[str]
    roles: Mapping[str, str] = field(default_factory=dict)
    new_role: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What a verified id_token says. `values`: of the role claim."""

    issuer: str
    subject: str
    email: str
    email_verified: bool
    name: str
    values: frozenset[str]


def role_for(rules: IdentityRules, values: Collection[str]) -> str | None:
    """Return the role that the values of the role claim give, or None."""
    given = {rules.roles[value] for value in values if value in rules.roles}
    return next((role for role in ROLES if role in given), None)


def let_in(tx: Transaction, actor: Actor, rules: IdentityRules, identity: Identity) -> UserRow:
    """Return the user of an account, linked or made where the rules allow it; raises IdentityRefused."""
    role = role_for(rules, identity.values)
    if rules.roles and role is None:
        raise IdentityRefused("the identity provider gives this account no role here", hint="ask those who manage its groups")
    found = tx.oidc_identities.find(issuer=identity.issuer, subject=identity.subject)
    if found:
        user = tx.users.get(found[0].user_id)
        assert user is not None  # an identity goes with its user
        tx.oidc_identities.change(found[0].id, last_used_ms=tx.now_ms)
    else:
        user = _linked(tx, actor, rules, identity, role)
    if user.state == users.DISABLED:
        raise IdentityRefused("this account is disabled here", hint="ask an admin")
    if role is not None and role != user.role:
        user = users.set_role(tx, actor, user, role)
    if not permissions_of(user.role):
        raise IdentityRefused(f"the role {user.role} has no console", hint="ask an admin for another role")
    if user.state == users.PENDING:
        user = tx.users.change(user.id, state=users.ACTIVE)
        tx.bump()
    return user


def _linked(tx: Transaction, actor: Actor, rules: IdentityRules, identity: Identity, role: str | None) -> UserRow:
    email = _believed_email(rules, identity)
    found = tx.users.find(email=email)
    if found:
        if tx.oidc_identities.count(user_id=found[0].id, issuer=identity.issuer):
            raise IdentityRefused(
                "another account of the identity provider is linked to this e-mail address",
                hint="an admin removes that link first: the address may have been given to somebody else",
            )
        if tx.passwords.count(user_id=found[0].id) or second_factors.has_one(tx, found[0].id):
            raise IdentityRefused(
                "the user with this e-mail address signs in here with a password or a passkey",
                hint="sign in with them, or ask an admin to reset your second factor (`userResetMfa`) and come back then",
            )
        user = found[0]
    elif rules.new_role is None:
        raise IdentityRefused("nobody has been invited with this e-mail address", hint="ask an admin for an invitation")
    else:
        first, _, last = identity.name.partition(" ")
        user = users.create(tx, actor, email=email, first_name=_name(first), last_name=_name(last), role=role or rules.new_role)
    tx.oidc_identities.add(user_id=user.id, issuer=identity.issuer, subject=identity.subject, last_used_ms=tx.now_ms)
    detail = {"identity": "linked", "issuer": identity.issuer}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), detail))
    return user


def _believed_email(rules: IdentityRules, identity: Identity) -> str:
    if not identity.email_verified:
        raise IdentityRefused(
            "the identity provider has not verified this account's e-mail address", hint="verify it there, then begin again"
        )
    try:
        email = users.parse_email(identity.email)
    except InvalidInput:
        raise IdentityRefused("the identity provider names no e-mail address for this account") from None
    if email.rpartition("@")[2] not in rules.domains:
        raise IdentityRefused("e-mail addresses of this domain are not let in", hint="see `--oidc-domain` of the controller")
    return email


def _name(text: str) -> str | None:
    clean = "".join(char for char in text.strip() if char.isprintable())[:255]
    return clean or None


def of_user(tx: Transaction, user_id: int) -> list[dict[str, Any]]:
    """Return the linked accounts of a user as pages show them."""
    return [
        {"id": row.id, "issuer": row.issuer, "last_used_ms": row.last_used_ms} for row in tx.oidc_identities.find(user_id=user_id)
    ]


def unlink(tx: Transaction, actor: Actor, user: UserRow, id: int) -> None:
    """Forget an account of an identity provider; it is linked again as one that comes for the first time.

    Raises NotFound, and Conflict for the last way in.
    """
    found = tx.oidc_identities.find(id=id, user_id=user.id)
    if not found:
        raise NotFound(KIND, id)
    if tx.oidc_identities.count(user_id=user.id) == 1:
        second_factors.check_another_than_identity(tx, user.id)
    tx.oidc_identities.remove(id=id)
    detail = {"identity": "unlinked", "issuer": found[0].issuer}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), detail))
