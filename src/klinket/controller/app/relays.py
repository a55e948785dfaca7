"""Relays: their tokens, and what they report of themselves."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Mapping
from typing import Any

from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import RelayRow
from klinket.domain import token_text
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.errors import AuthenticationFailed, Conflict, InvalidToken, NotFound
from klinket.domain.names import parse_name
from klinket.domain.token_text import token_hash

KIND = "Relay"


def get(tx: Transaction, id: int | None, shown_id: object) -> RelayRow:
    """Return the relay; raises NotFound with the id as the caller wrote it."""
    row = tx.relays.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def create(tx: Transaction, actor: Actor, *, name: str, entropy: Callable[[int], bytes]) -> tuple[RelayRow, str]:
    """Return a new relay and its token; raises InvalidInput, and Conflict for a name that is taken."""
    if tx.relays.find(name=parse_name(name)):
        raise Conflict("a relay with this name exists already", hint="give it a new token instead, or choose another name")
    return create_or_replace(tx, actor, name=name, entropy=entropy)


def remove(tx: Transaction, actor: Actor, row: RelayRow, *, kept: Collection[str] = ()) -> None:
    """Delete a relay: its channel ends, its token is dead, clients and connectors are told to stop using it.

    `kept`: names of relays that the controller runs itself. Raises Conflict for one of them.
    """
    _check_not_kept(row, kept)
    tx.relays.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (_target(row),)))


def create_or_replace(tx: Transaction, actor: Actor, *, name: str, entropy: Callable[[int], bytes]) -> tuple[RelayRow, str]:
    """Return the relay with this name, made where it is missing, and a new token; an earlier one is dead."""
    name = parse_name(name)
    found = tx.relays.find(name=name)
    if found:
        return replace_token(tx, actor, found[0], entropy=entropy)
    text = token_text.compose(token_text.RELAY_TOKEN, entropy(token_text.RANDOM_BYTES))
    row = tx.relays.add(name=name, token_hash=token_hash(text))
    _told(tx, actor, AuditAction.CREATE, row)
    return row, text


def replace_token(
    tx: Transaction, actor: Actor, row: RelayRow, *, entropy: Callable[[int], bytes], kept: Collection[str] = ()
) -> tuple[RelayRow, str]:
    """Return the relay and a new token; the earlier one is dead, and a channel with it ends. `kept`, errors: as `remove`."""
    _check_not_kept(row, kept)
    text = token_text.compose(token_text.RELAY_TOKEN, entropy(token_text.RANDOM_BYTES))
    changed = tx.relays.change(row.id, token_hash=token_hash(text))
    _told(tx, actor, AuditAction.EDIT, changed)
    return changed, text


def _told(tx: Transaction, actor: Actor, action: AuditAction, row: RelayRow) -> None:
    tx.bump()
    tx.record(AuditEvent(action, actor, (_target(row),), {"token": "issued"}))


def _check_not_kept(row: RelayRow, kept: Collection[str]) -> None:
    if row.name in kept:
        hint = "leave out --with-relay of `klinket controller` first"
        raise Conflict(f"the relay {row.name!r} is run by the controller itself", hint=hint)


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
