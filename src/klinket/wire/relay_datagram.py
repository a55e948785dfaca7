"""How an end binds its address at a relay's UDP port, for sealed datagrams of a pair (docs/reference/wire.md, security.md 7, 18).

    bind        peer -> relay    type (1) = 0x21 | admission (16) | leg (24) | own receiver (7) | peer's receiver (7)
                                 | number (8) | cookie (16) | HMAC-SHA256 over all before (32)
    challenge   relay -> peer    type (1) = 0x22 | receiver (7) | number (8) | cookie (16) | HMAC (32)
    bound       relay -> peer    type (1) = 0x23 | receiver (7) | number (8) | HMAC (32)

The key is the admission's; the first byte tells these from a relay hello, and from each other. A leg is an end's connection of a
pair, named by admission and counter of the hello that began it. The receivers are those of the sealed datagrams' path.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass

from klinket.domain.errors import ProtocolError
from klinket.wire.datagram_header import RECEIVER_BYTES
from klinket.wire.relay import ADMISSION_ID_BYTES

#: First byte of each message.
BIND, BIND_CHALLENGE, BOUND = 0x21, 0x22, 0x23
#: Admission and counter of a hello.
LEG_BYTES = ADMISSION_ID_BYTES + 8
COOKIE_BYTES = 16
#: The cookie of whoever has none yet.
NO_COOKIE = bytes(COOKIE_BYTES)
MAC_BYTES = 32

_BIND = struct.Struct(f">B{ADMISSION_ID_BYTES}s{LEG_BYTES}s{RECEIVER_BYTES}s{RECEIVER_BYTES}sQ{COOKIE_BYTES}s")
_CHALLENGE = struct.Struct(f">B{RECEIVER_BYTES}sQ{COOKIE_BYTES}s")
_BOUND = struct.Struct(f">B{RECEIVER_BYTES}sQ")
BIND_BYTES = _BIND.size + MAC_BYTES
BIND_CHALLENGE_BYTES = _CHALLENGE.size + MAC_BYTES
BOUND_BYTES = _BOUND.size + MAC_BYTES


def leg_name(admission: bytes, counter: int) -> bytes:
    """Return how a relay and one end name that end's connection of a pair."""
    return admission + counter.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Bind:
    """An end's request. `admission`: one that is in force now, of the holder whose `leg` it is; `number`: grows on a leg.

    `own`, `to`: the receiver of what the end gets, and of what it sends.
    """

    admission: bytes
    leg: bytes
    own: bytes
    to: bytes
    number: int
    cookie: bytes = NO_COOKIE

    def sign(self, key: bytes) -> bytes:
        """Return the message with its HMAC, BIND_BYTES long."""
        return _signed(key, _BIND.pack(BIND, self.admission, self.leg, self.own, self.to, self.number, self.cookie))

    @classmethod
    def unverified(cls, data: memoryview | bytes) -> Bind:
        """Return the fields of a message whose HMAC nobody has checked; raises ProtocolError."""
        if len(data) != BIND_BYTES or data[0] != BIND:
            raise ProtocolError("not a bind")
        return cls(*_BIND.unpack_from(data)[1:])


def challenge(key: bytes, receiver: bytes, number: int, cookie: bytes) -> bytes:
    """Return the relay's question to an address that is not proven."""
    return _signed(key, _CHALLENGE.pack(BIND_CHALLENGE, receiver, number, cookie))


def bound(key: bytes, receiver: bytes, number: int) -> bytes:
    """Return the relay's word that datagrams are forwarded to and from the address."""
    return _signed(key, _BOUND.pack(BOUND, receiver, number))


def receiver_of(answer: memoryview | bytes) -> bytes | None:
    """Return which path an answer of a relay is for; None for what is no such answer."""
    if (len(answer), answer[0] if answer else 0) in ((BIND_CHALLENGE_BYTES, BIND_CHALLENGE), (BOUND_BYTES, BOUND)):
        return bytes(answer[1 : 1 + RECEIVER_BYTES])
    return None


def read_answer(answer: memoryview | bytes, key: bytes) -> tuple[int, bytes | None]:
    """Return the number that an answer repeats, and the cookie of a challenge, None: bound. Raises ProtocolError."""
    if receiver_of(answer) is None:
        raise ProtocolError("not an answer to a bind")
    verify(answer, key)
    if answer[0] == BOUND:
        return _BOUND.unpack_from(answer)[2], None
    _, _, number, cookie = _CHALLENGE.unpack_from(answer)
    return number, cookie


def verify(message: memoryview | bytes, key: bytes) -> None:
    """Raise ProtocolError unless a message ends with the HMAC of `key` over what is before."""
    if not hmac.compare_digest(hmac.digest(key, message[:-MAC_BYTES], "sha256"), message[-MAC_BYTES:]):
        raise ProtocolError("a message of a relay's UDP port does not verify")


def _signed(key: bytes, message: bytes) -> bytes:
    return message + hmac.digest(key, message, "sha256")
