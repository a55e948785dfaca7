"""Admin API tokens: shown once, stored as a hash, with scopes."""

from __future__ import annotations

from collections.abc import Callable, Collection

from klinket.controller.app.audit import actor_detail
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ApiTokenRow
from klinket.domain import token_text
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import AuthenticationFailed, InvalidToken
from klinket.domain.names import parse_name
from klinket.domain.token_text import token_hash

READ, WRITE, PROVISION = "read", "write", "provision"
ALL_SCOPES = (READ, WRITE, PROVISION)


def create(
    tx: Transaction, actor: Actor, *, name: str, scopes: Collection[str], entropy: Callable[[int], bytes]
) -> tuple[ApiTokenRow, str]:
    """Return a new token's row and its text, which is kept nowhere."""
    text = token_text.compose(token_text.API_TOKEN, entropy(token_text.RANDOM_BYTES))
    row = tx.api_tokens.add(
        name=parse_name(name),
        token_hash=token_hash(text),
        scopes=sorted(scopes),
        is_enabled=True,
        allowed_ranges=[],
        created_by=actor_detail(actor),
    )
    target = {"version": "1", "type": "publicAPIKey", "id": str(row.id), "name": row.name, "scopes": row.scopes}
    tx.record(AuditEvent(AuditAction.CREATE, actor, (target,)))
    return row, text


def by_text(tx: Transaction, text: str) -> ApiTokenRow:
    """Return the token with this text; raises AuthenticationFailed."""
    try:
        token_text.check(text, token_text.API_TOKEN)
    except InvalidToken as error:
        raise AuthenticationFailed("X-API-KEY is not a valid API token", hint=error.hint or error.message) from None
    found = tx.api_tokens.find(token_hash=token_hash(text), is_enabled=True)
    if not found:
        raise AuthenticationFailed("X-API-KEY is not a valid API token", hint="it was disabled, or is of another network")
    return found[0]
