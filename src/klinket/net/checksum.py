"""The Internet checksum."""

from __future__ import annotations

import struct


def checksum(data: bytes) -> int:
    """Return the checksum of a header or message whose own field is 0 (RFC 1071); of one with the right field it is 0."""
    words = data if len(data) % 2 == 0 else data + b"\0"
    total: int = sum(struct.unpack(f">{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
