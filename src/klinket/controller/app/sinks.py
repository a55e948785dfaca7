"""Sinks: made, changed, deleted; and how far each has got. The stored events are the outbox: a sink keeps positions in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from klinket.controller.app.audit import TARGET_VERSION
from klinket.controller.app.audit_log import exported_event, with_previous
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import SinkRow
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.errors import InvalidInput, NotFound
from klinket.domain.names import parse_name
from klinket.domain.sink import SinkKind, Stream, checked_settings

KIND = "Sink"
MAX_SINKS = 50
#: Events of one delivery.
MAX_BATCH = 100
#: Milliseconds between tries: doubled after each failure up to the last.
FIRST_RETRY_MS, LAST_RETRY_MS = 1_000, 15 * 60_000
MAX_ERROR_CHARS = 500
#: What a sealed secret opens as.
SECRET_PURPOSE = "sink secret"  # noqa: S105 - no secret
#: Characters of a secret; what signatures of a webhook are made with has MIN_SECRET_CHARS at least.
MIN_SECRET_CHARS, MAX_SECRET_CHARS = 16, 500
#: Random bytes of one that is made up.
SECRET_BYTES = 24
#: Settings that say who gets the secret: it was given for these, and goes nowhere else.
SECRET_IS_FOR = ("url", "address", "user", "authority")
#: What lastError says of a sink that lost it, or never had one.
GIVE_IT_AGAIN = (
    "the sink has no secret (a change of its url, address, user or authority drops it): sinkUpdate(id: ..., secret: ...)"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a sink gets next: objects {"event_type": ..., "event": ...}, and its positions once they are delivered."""

    sink: SinkRow
    events: tuple[dict[str, Any], ...]
    audit_position: int
    flow_position: int


def get(tx: Transaction, id: int | None, shown_id: object) -> SinkRow:
    """Return the sink; raises NotFound with the id as the caller wrote it."""
    row = tx.sinks.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def where(row: SinkRow) -> str:
    """Return where the sink is: its URL, address or path."""
    return str(row.settings.get("url") or row.settings.get("address") or row.settings.get("path") or "standard output")


def _told_where(row: SinkRow) -> str:
    """Return where the sink is as others may read it: of a URL the host alone, since receivers put secrets behind it.

    The digest tells two addresses apart.
    """
    url = urlsplit(str(row.settings.get("url") or ""))
    if not url.netloc:
        return where(row)
    return f"{url.scheme}://{url.netloc} ({hashlib.sha256(url.geturl().encode()).hexdigest()[:12]})"


def _target(row: SinkRow) -> dict[str, Any]:
    authority = row.settings.get("authority")
    return {
        "version": TARGET_VERSION, "type": "sink", "id": str(row.id), "name": row.name, "kind": row.kind,
        "streams": row.streams, "isEnabled": row.is_enabled,
        "where": _told_where(row),
        "user": row.settings.get("user"),
        "recipients": row.settings.get("recipients") or [],
        "authoritySha256": hashlib.sha256(authority.encode()).hexdigest() if authority else None,
    }  # fmt: skip


def checked_streams(given: Collection[str]) -> list[str]:
    """Return streams in a fixed order; raises InvalidInput("streams")."""
    streams = [stream.value for stream in Stream if stream.value in given]
    if not streams or len(streams) != len(set(given)):
        raise InvalidInput("streams", "streams are audit, network, warnings: at least one of them")
    return streams


def sealed(kind: SinkKind, secret: str, seal: Callable[[bytes, str], bytes]) -> bytes:
    """Return a secret as it rests; `seal(secret, what)` encrypts. Raises InvalidInput("secret")."""
    least = MIN_SECRET_CHARS if kind is SinkKind.WEBHOOK else 1
    if not least <= len(secret) <= MAX_SECRET_CHARS or not secret.isascii():
        raise InvalidInput("secret", f"secret is {least} to {MAX_SECRET_CHARS} ASCII characters")
    return seal(secret.encode(), SECRET_PURPOSE)


def made_up(kind: SinkKind, entropy: Callable[[int], bytes]) -> str | None:
    """Return a new secret for a sink that needs one and was given none; None for kinds that go without."""
    return entropy(SECRET_BYTES).hex() if kind is SinkKind.WEBHOOK else None


def create(
    tx: Transaction,
    actor: Actor,
    *,
    name: str,
    kind: SinkKind,
    settings: Mapping[str, Any],
    streams: Collection[str],
    sealed_secret: bytes | None,
) -> SinkRow:
    """Create a sink that gets what happens from now on; raises InvalidInput, Conflict."""
    if len(tx.sinks.all()) >= MAX_SINKS:
        raise InvalidInput("sinks", f"there are {MAX_SINKS} sinks, the limit")
    row = _add(tx, parse_name(name), kind, checked_settings(kind, settings), checked_streams(streams), sealed_secret)
    tx.record(AuditEvent(AuditAction.CREATE, actor, (_target(row),)))
    return row


def _add(
    tx: Transaction, name: str, kind: SinkKind, settings: dict[str, Any], streams: list[str], sealed_secret: bytes | None
) -> SinkRow:
    head, last_flow = tx.audit_head.get(1), tx.flow_events.newest(1)
    return tx.sinks.add(
        name=name,
        kind=kind.value,
        settings=settings,
        sealed_secret=sealed_secret,
        streams=streams,
        is_enabled=True,
        audit_position=head.number if head is not None else 0,
        flow_position=last_flow[0].id if last_flow else 0,
        attempts=0,
    )


def update(tx: Transaction, actor: Actor, row: SinkRow, changes: Mapping[str, Any]) -> SinkRow:
    """Change name, settings, streams, is_enabled or sealed_secret; a changed sink is tried again at once.

    Whoever may edit a sink may not read its secret: a change of SECRET_IS_FOR drops it, unless it is given again.
    """
    kind = SinkKind(row.kind)
    values = dict(changes)
    detail: dict[str, Any] = {"before": _target(row)}
    if "name" in values:
        values["name"] = parse_name(values["name"])
    if "settings" in values:
        values["settings"] = checked_settings(kind, {**row.settings, **values["settings"]})
        moved = any(values["settings"].get(name) != row.settings.get(name) for name in SECRET_IS_FOR)
        if moved and row.sealed_secret is not None and "sealed_secret" not in values:
            values |= {"sealed_secret": None, "last_error": GIVE_IT_AGAIN}
    if "streams" in values:
        values["streams"] = checked_streams(values["streams"])
    if "sealed_secret" in values:
        detail["secret"] = "dropped" if values["sealed_secret"] is None else "given"
    changed = tx.sinks.change(row.id, **values, attempts=0, next_try_ms=None)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (_target(changed),), detail))
    return changed


def delete(tx: Transaction, actor: Actor, row: SinkRow) -> None:
    """Delete a sink; what it has not got yet, it never gets. Raises InvalidInput for one of the command line."""
    if row.kind in (SinkKind.FILE.value, SinkKind.STDOUT.value):
        raise InvalidInput("id", f"sink {row.name!r} is set up by an option of `klinket controller`", hint="leave the option out")
    tx.sinks.remove(id=row.id)
    tx.record(AuditEvent(AuditAction.DELETE, actor, (_target(row),)))


def test(tx: Transaction, actor: Actor, row: SinkRow) -> SinkRow:
    """Record a warning that is a test, for a sink to get at once like any other event; raises InvalidInput for a disabled one."""
    if not row.is_enabled:
        raise InvalidInput("id", f"sink {row.name!r} is disabled", hint="enable it first")
    tx.record(AuditEvent(AuditAction.WARN, actor, (_target(row),), {"test": True}))
    return tx.sinks.change(row.id, attempts=0, next_try_ms=None, updated_at_ms=row.updated_at_ms)


def ensure_local(tx: Transaction, wanted: Mapping[SinkKind, dict[str, Any]]) -> None:
    """Make the sinks of the command line (`wanted`: kind -> settings) what it says; others of these kinds go."""
    for kind in (SinkKind.FILE, SinkKind.STDOUT):
        found = tx.sinks.find(kind=kind.value)
        settings = wanted.get(kind)
        if settings is None:
            for row in found:
                tx.sinks.remove(id=row.id)
                tx.record(AuditEvent(AuditAction.DELETE, SYSTEM, (_target(row),)))
        elif not found:
            row = _add(tx, f"{kind.value} of the controller", kind, settings, [Stream.AUDIT.value, Stream.NETWORK.value], None)
            tx.record(AuditEvent(AuditAction.CREATE, SYSTEM, (_target(row),)))
        elif found[0].settings != settings:
            tx.sinks.change(found[0].id, settings=settings, attempts=0, next_try_ms=None)


def due(tx: Transaction) -> list[Batch]:
    """Return what enabled sinks whose time has come get next; those that have everything are left out."""
    batches = []
    for sink in tx.sinks.find(is_enabled=True):
        if sink.next_try_ms is None or sink.next_try_ms <= tx.now_ms:
            batch = _next(tx, sink)
            if batch.events or (batch.audit_position, batch.flow_position) != (sink.audit_position, sink.flow_position):
                batches.append(batch)
    return batches


def _next(tx: Transaction, sink: SinkRow) -> Batch:
    events: list[dict[str, Any]] = []
    audit_position, flow_position = sink.audit_position, sink.flow_position
    everything = Stream.AUDIT.value in sink.streams
    if everything or Stream.WARNINGS.value in sink.streams:
        rows = tx.audit.after("number", audit_position, MAX_BATCH)
        for row, previous in with_previous(tx, rows):
            if everything or row.action in (AuditAction.WARN.value, AuditAction.ALARM.value) or "alarm" in row.detail:
                events.append({"event_type": "audit_log", "event": exported_event(row, previous)})
            audit_position = row.number
    if Stream.NETWORK.value in sink.streams and len(events) < MAX_BATCH:
        for flow in tx.flow_events.after("id", flow_position, MAX_BATCH - len(events)):
            events.append({"event_type": "network", "event": flow.event})
            flow_position = flow.id
    return Batch(sink, tuple(events), audit_position, flow_position)


def delivered(tx: Transaction, batch: Batch) -> None:
    """Move a sink's positions past a batch, unless somebody changed or deleted it meanwhile."""
    row = tx.sinks.get(batch.sink.id)
    if row is None or (row.audit_position, row.flow_position) != (batch.sink.audit_position, batch.sink.flow_position):
        return
    tx.sinks.change(
        row.id,
        audit_position=batch.audit_position,
        flow_position=batch.flow_position,
        attempts=0,
        next_try_ms=None,
        last_error=None,
        updated_at_ms=row.updated_at_ms,
        **({"last_delivered_ms": tx.now_ms} if batch.events else {}),
    )


def failed(tx: Transaction, batch: Batch, error: str) -> None:
    """Note a failed delivery and when to try again."""
    row = tx.sinks.get(batch.sink.id)
    if row is None:
        return
    wait = min(LAST_RETRY_MS, FIRST_RETRY_MS << min(row.attempts, 20))
    tx.sinks.change(
        row.id,
        attempts=row.attempts + 1,
        next_try_ms=tx.now_ms + wait,
        last_error=error[:MAX_ERROR_CHARS],
        updated_at_ms=row.updated_at_ms,
    )


def waiting(tx: Transaction, row: SinkRow) -> int:
    """Return about how many audit events a sink has still to get."""
    head = tx.audit_head.get(1)
    return max(0, (head.number if head is not None else 0) - row.audit_position)
