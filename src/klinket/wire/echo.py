"""What DATAGRAM frames of an ICMP flow hold (docs/reference/wire.md): an echo, of ICMP or ICMPv6."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from klinket.domain.errors import ProtocolError

_SEQUENCE = struct.Struct(">H")
#: Bytes of payload of an echo: with the sequence number as much as the largest datagram.
MAX_ECHO_PAYLOAD_BYTES = 65_505


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request (from the client) or reply (to it): sequence (2) | payload.

    There is no identifier: each end's own socket has its own.
    """

    sequence: int
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the content."""
        return _SEQUENCE.pack(self.sequence) + self.payload

    @classmethod
    def decode(cls, content: bytes) -> Echo:
        """Return the echo; raises ProtocolError."""
        if not _SEQUENCE.size <= len(content) <= _SEQUENCE.size + MAX_ECHO_PAYLOAD_BYTES:
            raise ProtocolError(f"an echo of {len(content)} bytes")
        return cls(_SEQUENCE.unpack_from(content)[0], bytes(content[_SEQUENCE.size :]))
