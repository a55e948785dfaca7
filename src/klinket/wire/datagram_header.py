"""What a relay sees of a sealed datagram: that it is one, and which path it is for. Nothing here opens one (see datagram)."""

from __future__ import annotations

#: First byte of every sealed datagram of this version.
SEALED = 0x11
HEADER_BYTES = 16
TAG_BYTES = 16
INDEX_BYTES = 6
#: Process and index.
RECEIVER_BYTES = 1 + INDEX_BYTES
#: What tells whose a datagram is: type, process and index.
HEAD_BYTES = 1 + RECEIVER_BYTES
FLOW_BYTES = 8
#: Bytes behind the content, inside the seal.
TRAILER_BYTES = FLOW_BYTES + 1
#: Bytes a sealed datagram has more than its content.
OVERHEAD_BYTES = HEADER_BYTES + TRAILER_BYTES + TAG_BYTES


def receiver_of(datagram: memoryview | bytes) -> bytes | None:
    """Return whom a datagram names as its receiver (7 bytes); None for what cannot be a sealed datagram of this version."""
    if len(datagram) < OVERHEAD_BYTES or datagram[0] != SEALED:
        return None
    return bytes(datagram[1:8])
