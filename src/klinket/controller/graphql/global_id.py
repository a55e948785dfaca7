"""Global ids of the Admin API: base64 of `Type:number`, opaque to clients (facts §7)."""

from __future__ import annotations

import base64
import binascii
import re

_SHAPE = re.compile(r"([A-Za-z]{1,40}):([1-9][0-9]{0,17})", re.ASCII)
#: A longer text is no global id of ours; nothing is decoded from it.
MAX_GLOBAL_ID_CHARS = 100


def to_global_id(type_name: str, number: int) -> str:
    """Return the opaque id of an object: `to_global_id("Resource", 7)` is `UmVzb3VyY2U6Nw==`."""
    return base64.b64encode(f"{type_name}:{number}".encode()).decode()


def from_global_id(text: str) -> tuple[str, int] | None:
    """Return (type name, number), or None for anything that is not a global id: it names no object then."""
    if len(text) > MAX_GLOBAL_ID_CHARS:
        return None
    try:
        decoded = base64.b64decode(text, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    match = _SHAPE.fullmatch(decoded)
    return (match[1], int(match[2])) if match else None


def number_of(text: str | None, type_name: str) -> int | None:
    """Return the number when `text` is a global id of exactly this type, else None."""
    parsed = from_global_id(text) if text else None
    return parsed[1] if parsed and parsed[0] == type_name else None
