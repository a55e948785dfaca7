"""Admin API tokens: shown once, stored as a hash, with scopes, an expiry and the addresses they may be used from.

A token makes and edits only tokens that can do no more than itself, and of itself changes only the name. So whoever asks
still has a token afterwards, and nobody locks everybody out; `klinket issue api-token` is the way back in from an expiry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from klinket.controller.app.audit import actor_detail, api_token_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ApiTokenRow
from klinket.domain import token_text
from klinket.domain.api_token import ALL_SCOPES as ALL_SCOPES
from klinket.domain.api_token import PROVISION as PROVISION
from klinket.domain.api_token import READ as READ
from klinket.domain.api_token import WRITE as WRITE
from klinket.domain.api_token import expiry_from_days, parse_scopes
from klinket.domain.audit import ActorType, AuditAction, AuditEvent
from klinket.domain.errors import AuthenticationFailed, Conflict, Forbidden, InvalidToken, NotFound
from klinket.domain.names import parse_name
from klinket.domain.source_range import covers, parse_ranges, within
from klinket.domain.token_text import token_hash

KIND = "API token"
#: Milliseconds between two notes of a token's use.
USE_NOTED_MS = 60_000
#: One text for every token that is not believed: who guesses learns nothing.
NOT_BELIEVED = "X-API-KEY holds no valid API token"
NOT_BELIEVED_HINT = "it is missing, mistyped, expired, disabled or deleted, or of another network"


def get(tx: Transaction, id: int | None, shown_id: object) -> ApiTokenRow:
    """Return the token; raises NotFound with the id as the caller wrote it."""
    row = tx.api_tokens.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def is_live(row: ApiTokenRow, now_ms: int) -> bool:
    """Return whether the token is enabled and has not expired."""
    return row.is_enabled and (row.expires_at_ms is None or now_ms < row.expires_at_ms)


def create(
    tx: Transaction,
    actor: Actor,
    *,
    name: str,
    scopes: Collection[str],
    entropy: Callable[[int], bytes],
    days: int = 0,
    allowed_ranges: Iterable[str] = (),
) -> tuple[ApiTokenRow, str]:
    """Return a new token's row and its text, which is kept nowhere. `days`: until it expires, 0: never.

    Raises InvalidInput, Conflict for a name that is taken, Forbidden for more than the actor's own token can do.
    """
    text = token_text.compose(token_text.API_TOKEN, entropy(token_text.RANDOM_BYTES))
    row = tx.api_tokens.add(
        name=parse_name(name),
        token_hash=token_hash(text),
        scopes=parse_scopes(scopes),
        is_enabled=True,
        expires_at_ms=expiry_from_days(days, tx.now_ms),
        allowed_ranges=parse_ranges(allowed_ranges),
        created_by=actor_detail(actor),
    )
    _check_within(_own(tx, actor), row)
    tx.record(AuditEvent(AuditAction.CREATE, actor, (api_token_target(row),)))
    return row, text


def update(
    tx: Transaction,
    actor: Actor,
    row: ApiTokenRow,
    *,
    name: str | None = None,
    scopes: Collection[str] | None = None,
    is_enabled: bool | None = None,
    allowed_ranges: Iterable[str] | None = None,
) -> ApiTokenRow:
    """Change what is not None and return the token; the expiry stays. An empty `allowed_ranges` allows every address.

    Raises InvalidInput, Conflict for the actor's own token, Forbidden for more than that can do.
    """
    own = _own(tx, actor)
    wanted: dict[str, Any] = {}
    if name is not None:
        wanted["name"] = parse_name(name)
    if scopes is not None:
        wanted["scopes"] = parse_scopes(scopes)
    if is_enabled is not None:
        wanted["is_enabled"] = is_enabled
    if allowed_ranges is not None:
        wanted["allowed_ranges"] = parse_ranges(allowed_ranges)
    changes = {column: value for column, value in wanted.items() if value != getattr(row, column)}
    if not changes:
        return row
    if changes.keys() != {"name"}:
        _check_another(own, row)
    _check_within(own, row)
    changed = tx.api_tokens.change(row.id, **changes)
    _check_within(own, changed)
    detail: dict[str, Any] = {"before": api_token_target(row)}
    if "is_enabled" in changes:
        detail["isEnabled"] = changed.is_enabled
    tx.record(AuditEvent(AuditAction.EDIT, actor, (api_token_target(changed),), detail))
    return changed


def delete(tx: Transaction, actor: Actor, row: ApiTokenRow) -> None:
    """Delete a token for good. Raises Conflict for the actor's own, Forbidden for one that can do more."""
    own = _own(tx, actor)
    _check_another(own, row)
    _check_within(own, row)
    tx.api_tokens.remove(id=row.id)
    tx.record(AuditEvent(AuditAction.DELETE, actor, (api_token_target(row),)))


def by_text(tx: Transaction, text: str) -> ApiTokenRow:
    """Return the live token with this text; raises AuthenticationFailed, the same for every reason.

    It is looked up by its hash, so the time this takes tells nothing of the tokens there are.
    """
    try:
        token_text.check(text, token_text.API_TOKEN)
    except InvalidToken:
        raise AuthenticationFailed(NOT_BELIEVED, hint=NOT_BELIEVED_HINT) from None
    found = tx.api_tokens.find(token_hash=token_hash(text))
    if not found or not is_live(found[0], tx.now_ms):
        raise AuthenticationFailed(NOT_BELIEVED, hint=NOT_BELIEVED_HINT)
    return found[0]


def check_source(row: ApiTokenRow, address: str) -> None:
    """Raise Forbidden unless the token may be used from this address."""
    if row.allowed_ranges and not covers(row.allowed_ranges, address):
        hint = "use it from an address it allows, or have its ranges changed: klinket admin token update NAME --range RANGE"
        raise Forbidden(f"this API token may not be used from {address or 'an unknown address'}", hint=hint)


def note_use(tx: Transaction, id: int) -> None:
    """Note that a token is used now. It is no change of the token."""
    row = tx.api_tokens.get(id)
    if row is not None and (row.last_used_ms is None or row.last_used_ms < tx.now_ms):
        tx.api_tokens.change(id, last_used_ms=tx.now_ms, updated_at_ms=row.updated_at_ms)


def record_refusal(tx: Transaction, actor: Actor, id: int, why: str) -> None:
    """Write the audit event of a request that was refused to a live token. `why`: "source" or "scope"."""
    row = tx.api_tokens.get(id)
    if row is not None:
        tx.record(AuditEvent(AuditAction.REFUSE, actor, (api_token_target(row),), {"code": Forbidden.code, "why": why}))


# ---- what an actor's own token allows


def _own(tx: Transaction, actor: Actor) -> ApiTokenRow | None:
    """Return the token the actor came with, as it is now; None for people and the controller itself."""
    if actor.type is not ActorType.API:
        return None
    row = tx.api_tokens.get(int(actor.id)) if actor.id is not None else None
    if row is None or not is_live(row, tx.now_ms):
        raise AuthenticationFailed(NOT_BELIEVED, hint=NOT_BELIEVED_HINT)  # ended since the request began
    return row


def _check_another(own: ApiTokenRow | None, row: ApiTokenRow) -> None:
    if own is not None and own.id == row.id:
        raise Conflict(
            "an API token can change nothing of itself but its name, and not delete itself: nobody could undo it",
            hint="use another token with the scope provision",
        )


def _check_within(own: ApiTokenRow | None, row: ApiTokenRow) -> None:
    """Raise Forbidden when `row` can do more, from more places or for longer than the actor's own token."""
    if own is None:
        return
    if not set(row.scopes) <= set(own.scopes):
        more = "scopes that your own lacks"
    elif not within(row.allowed_ranges, own.allowed_ranges):
        more = "source addresses that your own lacks"
    elif own.expires_at_ms is not None and (row.expires_at_ms is None or row.expires_at_ms > own.expires_at_ms):
        more = "a later expiry than your own"
    else:
        return
    raise Forbidden(f"API token {row.name!r} has {more}", hint="use a token that can do at least as much")
