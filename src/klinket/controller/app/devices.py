"""Devices of users, and the serial numbers an admin trusts. Services have neither."""

from __future__ import annotations

from collections.abc import Sequence

from klinket.controller.app.audit import device_target, serial_number_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import DeviceRow, SerialNumberRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, InvalidInput, NotFound
from klinket.domain.names import parse_name

KIND = "Device"
ACTIVE, ARCHIVED, BLOCKED = "ACTIVE", "ARCHIVED", "BLOCKED"
#: Serial numbers of one call.
MAX_SERIAL_NUMBERS = 1_000
#: (from, to) states of a device that an admin can bring about.
MOVES = {
    (ACTIVE, ARCHIVED): "archived",
    (ARCHIVED, ACTIVE): "unarchived",
    (ACTIVE, BLOCKED): "blocked",
    (ARCHIVED, BLOCKED): "blocked",
    (BLOCKED, ACTIVE): "unblocked",
}


def get(tx: Transaction, id: int | None, shown_id: object) -> DeviceRow:
    """Return the device; raises NotFound with the id as the caller wrote it."""
    row = tx.devices.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def trust(tx: Transaction, actor: Actor, row: DeviceRow, *, is_trusted: bool) -> DeviceRow:
    """Trust a device, or not any more."""
    return _changed(tx, actor, row, is_trusted=is_trusted)


def move(tx: Transaction, actor: Actor, row: DeviceRow, *, to: str, of: Sequence[str]) -> DeviceRow:
    """Bring a device into a state from one of the states `of`; raises Conflict."""
    if row.active_state not in of or (row.active_state, to) not in MOVES:
        raise Conflict(f"the device is {row.active_state}: only one that is {' or '.join(of)} can become {to}")
    return _changed(tx, actor, row, active_state=to)


def _changed(tx: Transaction, actor: Actor, row: DeviceRow, **values: object) -> DeviceRow:
    changed = tx.devices.change(row.id, **values)
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (device_target(changed),), {"before": device_target(row)}))
    return changed


def add_serial_numbers(tx: Transaction, actor: Actor, texts: Sequence[str]) -> list[SerialNumberRow]:
    """Return the rows of these serial numbers, made where they are missing; raises InvalidInput."""
    if len(texts) > MAX_SERIAL_NUMBERS:
        raise InvalidInput("serialNumbers", f"{len(texts)} serial numbers, the limit is {MAX_SERIAL_NUMBERS} a call")
    rows = []
    for text in dict.fromkeys(parse_name(text, "serialNumbers") for text in texts):
        found = tx.serial_numbers.find(serial_number=text)
        row = found[0] if found else tx.serial_numbers.add(serial_number=text)
        rows.append(row)
        if not found:
            tx.record(AuditEvent(AuditAction.CREATE, actor, (serial_number_target(row),)))
    return rows


def remove_serial_numbers(tx: Transaction, actor: Actor, texts: Sequence[str]) -> None:
    """Delete serial numbers; raises NotFound for the first that is not there."""
    for text in dict.fromkeys(texts):
        found = tx.serial_numbers.find(serial_number=text.strip())
        if not found:
            raise NotFound("Serial number", text)
        tx.serial_numbers.remove(id=found[0].id)
        tx.record(AuditEvent(AuditAction.DELETE, actor, (serial_number_target(found[0]),)))
