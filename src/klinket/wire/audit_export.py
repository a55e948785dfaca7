"""The audit as JSON lines: {"event_type": "audit_log", "event": {...}} (facts §6), with the signatures between the events.

Lines of other types are the controller's signatures: `audit_anchor` before the first event where retention removed those before
it, `audit_signature` after the last event it covers, `audit_trailer` at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from klinket.domain.audit_verification import Record, RecordKind

EVENT, SIGNATURE, TRAILER, ANCHOR = "audit_log", "audit_signature", "audit_trailer", "audit_anchor"
_SIGNED = {SIGNATURE: RecordKind.SIGNATURE, TRAILER: RecordKind.TRAILER, ANCHOR: RecordKind.ANCHOR}
#: Bytes of a line; a longer one is not read as an event.
MAX_LINE_BYTES = 4 * 1024 * 1024


def event_line(event: dict[str, Any]) -> bytes:
    """Return the line of an event as exported, with its digest."""
    return _line(EVENT, event)


def signature_line(token: str) -> bytes:
    """Return the line of a signature under events."""
    return _line(SIGNATURE, {"token": token})


def anchor_line(token: str) -> bytes:
    """Return the first line, where retention removed what was before the first event."""
    return _line(ANCHOR, {"token": token})


def trailer_line(token: str) -> bytes:
    """Return the last line."""
    return _line(TRAILER, {"token": token})


def _line(event_type: str, event: dict[str, Any]) -> bytes:
    return json.dumps({"event_type": event_type, "event": event}, separators=(",", ":")).encode() + b"\n"


def read_records(lines: Iterable[bytes]) -> Iterator[Record]:
    """Yield what is on each line that is not empty; a line that is not understood is told as such, never passed over."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _record(number, line)


def _record(number: int, line: bytes) -> Record:
    unreadable = Record(number, RecordKind.UNREADABLE)
    if len(line) > MAX_LINE_BYTES:
        return unreadable
    try:
        # A name given twice, or NaN, reads differently elsewhere: what is verified here must be what others see.
        document = json.loads(line, object_pairs_hook=_object, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return unreadable
    if not isinstance(document, dict) or document.keys() != {"event_type", "event"} or not isinstance(document["event"], dict):
        return unreadable
    event = document["event"]
    match document["event_type"]:
        case "audit_log":
            return Record(number, RecordKind.EVENT, event)
        case "audit_signature" | "audit_trailer" | "audit_anchor" as kind if _is_token(event):
            return Record(number, _SIGNED[kind], token=event["token"])
        case _:
            return unreadable


def _is_token(event: dict[str, Any]) -> bool:
    return event.keys() == {"token"} and isinstance(event["token"], str)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is given twice")
    return made


def _refuse(text: str) -> Any:
    raise ValueError(f"not JSON: {text}")
