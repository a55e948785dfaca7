"""Relays: their tokens, and what they report of themselves."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any

from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import RelayRow
from klinket.domain import token_text
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.errors import AuthenticationFailed, InvalidToken, NotFound
from klinket.domain.names import parse_name
from klinket.domain.token_text import token_hash


def create_or_replace(tx: Transaction, actor: Actor, *, name: str, entropy: Callable[[int], bytes]) -> tuple[RelayRow, str]:
    """Return the relay with this name, made where it is missing, and a new token; an earlier one is dead."""
    text = token_text.compose(token_text.RELAY_TOKEN, entropy(token_text.RANDOM_BYTES))
    found = tx.relays.find(name=name)
    if found:
        row = tx.relays.change(found[0].id, token_hash=token_hash(text))
    else:
        row = tx.relays.add(name=parse_name(name), token_hash=token_hash(text))
    tx.bump()
    action = AuditAction.EDIT if found else AuditAction.CREATE
    tx.record(AuditEvent(action, actor, (_target(row),), {"token": "issued"}))
    return row, text


def get(tx: Transaction, number: int | None, id: str) -> RelayRow:
    """Return a relay; raises NotFound. `id`: as it was asked for."""
    row = tx.relays.get(number) if number is not None else None
    if row is None:
        raise NotFound("Relay", id)
    return row


def delete(tx: Transaction, actor: Actor, row: RelayRow) -> None:
    """Delete a relay: its token is dead, its channel ends, and clients and connectors are told of the others only."""
    tx.relays.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (_target(row),), {}))


def _target(row: RelayRow) -> dict[str, Any]:
    certificate = {"certificateSha256": row.certificate_sha256}
    return {"version": "1", "type": "relay", "id": str(row.id), "name": row.name, "address": row.address} | certificate


def by_token(tx: Transaction, text: str) -> RelayRow:
    """Return the relay this token belongs to; raises AuthenticationFailed."""
    try:
        token_text.check(text, token_text.RELAY_TOKEN)
    except InvalidToken:
        raise AuthenticationFailed("not a valid relay token") from None
    found = tx.relays.find(token_hash=token_hash(text))
    if not found:
        raise AuthenticationFailed("not a valid relay token")
    return found[0]


def believed(tx: Transaction, id: int, hash: str) -> RelayRow:
    """Return the relay whose present token has this hash; raises AuthenticationFailed when it was replaced or deleted."""
    row = tx.relays.get(id)
    if row is None or not hmac.compare_digest(row.token_hash, hash):
        raise AuthenticationFailed("this relay token was replaced, or the relay was deleted")
    return row


def disbelieved(tx: Transaction, attached: Mapping[int, str]) -> list[int]:
    """Return which of the attached relays (id -> hash of its token) have another token now, or are deleted."""
    present = {row.id: row.token_hash for row in tx.relays.find()}
    return [id for id, hash in attached.items() if not hmac.compare_digest(present.get(id, ""), hash)]


def report(tx: Transaction, id: int, hash: str, *, address: str, certificate_sha256: str, source: str) -> bool:
    """Take over a relay's address and certificate; returns whether they changed. `hash`, errors: as `believed`."""
    row = believed(tx, id, hash)
    if (row.address, row.certificate_sha256) == (address, certificate_sha256):
        return False
    changed = tx.relays.change(id, address=address, certificate_sha256=certificate_sha256)
    tx.bump()
    actor = Actor(SYSTEM.type, name=row.name, source=source)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (_target(changed),), {"before": _target(row)}))
    return True
