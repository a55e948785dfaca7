"""One-time links: the first admin, an invitation, a way back in. Whoever holds one chooses new credentials, once."""

from __future__ import annotations

from collections.abc import Callable

from klinket.controller.app import console_sessions, second_factors, users
from klinket.controller.app.audit import actor_detail, controller_target, user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import SignInLinkRow, UserRow
from klinket.domain import token_text
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import InvalidToken, SignInOver
from klinket.domain.token_text import token_hash

LINK_PATH = "/console/sign-in/link"
#: Milliseconds a link lives.
LIFE_MS = 24 * 3_600_000
DEAD = "this link is not valid: it was used, it is older than 24 hours, or a newer one was made"
DEAD_HINT = "have a new one made by an admin, or on the controller's machine: `klinket issue admin-link`"


def create(tx: Transaction, actor: Actor, user: UserRow | None, entropy: Callable[[int], bytes]) -> str:
    """Return the text of a new link for a user, or for the first admin; earlier ones for the same are dead."""
    dead = [row.id for row in tx.sign_in_links.find(user_id=None if user is None else user.id)]
    tx.sign_in_links.remove(id=dead)
    text = token_text.compose(token_text.SIGN_IN_LINK, entropy(token_text.RANDOM_BYTES))
    tx.sign_in_links.add(
        token_hash=token_hash(text),
        user_id=None if user is None else user.id,
        expires_at_ms=tx.now_ms + LIFE_MS,
        created_by=actor_detail(actor),
    )
    target = controller_target("first admin") if user is None else user_target(user)
    tx.record(AuditEvent(AuditAction.CREATE, actor, (target,), {"signInLink": "made", "hours": LIFE_MS // 3_600_000}))
    return text


def address_of(public_url: str, text: str) -> str:
    """Return the address that is given to somebody. Browsers do not send what is behind the `#`."""
    return f"{public_url.rstrip('/')}{LINK_PATH}#{text}"


def by_text(tx: Transaction, text: str) -> SignInLinkRow:
    """Return the live link with this text; raises SignInOver, the same for every reason."""
    try:
        token_text.check(text.strip(), token_text.SIGN_IN_LINK)
    except InvalidToken:
        raise SignInOver(DEAD, hint=DEAD_HINT) from None
    found = tx.sign_in_links.find(token_hash=token_hash(text.strip()))
    if not found:
        raise SignInOver(DEAD, hint=DEAD_HINT)
    return check_live(tx, found[0])


def check_live(tx: Transaction, row: SignInLinkRow | None) -> SignInLinkRow:
    """Return a link that can be used now; raises SignInOver."""
    if row is None or row.expires_at_ms <= tx.now_ms or (row.user_id is None and has_admin(tx)):
        raise SignInOver(DEAD, hint=DEAD_HINT)
    return row


def has_admin(tx: Transaction) -> bool:
    """Return whether some admin can sign in."""
    admins = [row.id for row in tx.users.find(role="ADMIN", state="ACTIVE")]
    return bool(
        tx.passwords.count(user_id=admins) or tx.passkeys.count(user_id=admins) or tx.oidc_identities.count(user_id=admins)
    )


def first_admin(tx: Transaction, actor: Actor, entropy: Callable[[int], bytes]) -> str | None:
    """Return a link for the first admin; None where there is an admin, or a link that was shown and still lives."""
    if has_admin(tx) or any(row.expires_at_ms > tx.now_ms for row in tx.sign_in_links.find(user_id=None)):
        return None
    return create(tx, actor, None, entropy)


def forget(tx: Transaction) -> None:
    """Remove links that have expired."""
    dead = [row.id for row in tx.sign_in_links.until("expires_at_ms", tx.now_ms, 1_000)]
    tx.sign_in_links.remove(id=dead)


def accept(
    tx: Transaction, row: SignInLinkRow, actor: Actor, *, email: str, first_name: str | None, last_name: str | None
) -> UserRow:
    """Use up a link: return its user, active and without any credentials and sessions; the first admin is made here.

    `email` counts for the first admin only. Raises SignInOver, InvalidInput.
    """
    check_live(tx, tx.sign_in_links.get(row.id))
    address = users.parse_email(email) if row.user_id is None else ""
    user = _first(tx, actor, address) if row.user_id is None else tx.users.get(row.user_id)
    assert user is not None  # a link goes with its user
    if user.state == users.DISABLED:
        raise SignInOver(DEAD, hint=DEAD_HINT)
    values = {"first_name": users.parse_person(first_name, "firstName"), "last_name": users.parse_person(last_name, "lastName")}
    changed = tx.users.change(user.id, state=users.ACTIVE, **{name: value for name, value in values.items() if value is not None})
    tx.sign_in_links.remove(id=row.id)
    tx.passwords.remove(user_id=user.id)
    second_factors.remove_all(tx, user.id)
    tx.oidc_identities.remove(user_id=user.id)
    console_sessions.end(tx, user_id=user.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(changed),), {"signInLink": "used"}))
    return changed


def _first(tx: Transaction, actor: Actor, email: str) -> UserRow:
    found = tx.users.find(email=email)
    if found:  # made over the Admin API before
        return users.set_role(tx, actor, tx.users.change(found[0].id, state=users.PENDING), "ADMIN")
    return users.create(tx, actor, email=email, first_name=None, last_name=None, role="ADMIN")


def admin_link(tx: Transaction, actor: Actor, email: str, entropy: Callable[[int], bytes]) -> str:
    """Return a link for the admin with this address, whoever that was before: for those who own the controller's machine."""
    address = users.parse_email(email)
    found = tx.users.find(email=address)
    if not found:
        user = users.create(tx, actor, email=address, first_name=None, last_name=None, role="ADMIN")
    else:
        user = found[0] if found[0].role == "ADMIN" else users.set_role(tx, actor, found[0], "ADMIN")
        if user.state == users.DISABLED:
            user = users.update(tx, actor, user, first_name=None, last_name=None, state=users.ACTIVE)
    return create(tx, actor, user, entropy)
