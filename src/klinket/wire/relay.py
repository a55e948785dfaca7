"""What crosses between a relay and its peers, and between a relay and the controller (docs/reference/wire.md, security.md 18).

Admission, inside TLS (the relay's certificate is pinned):

    peer -> relay    length (2, big-endian) | ticket
    relay -> peer    0x01 | admission id (16) | key (32) | expires, ms since the epoch (8) | UDP port (2)    admitted
                     code (1) | text, UTF-8                                                                  refused

The UDP port, 0 for none, is in the second version only (ALPN): see relay_datagram.

Every later connection begins with a hello, in the clear:

    peer -> relay    version (1) | role (1) | admission id (16) | counter (8) | connector (8) | HMAC-SHA256 over all before (32)
    relay -> peer    one byte: 0x01 paired, else a refusal, then the connection closes

After 0x01 the relay moves bytes and looks at none.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass, field
from enum import IntEnum

import msgspec

from klinket.domain.errors import KlinketError, ProtocolError

VERSION = 1
#: First byte of a TLS handshake record: an admission.
TLS_HANDSHAKE = 0x16
ADMISSION_ID_BYTES = 16
KEY_BYTES = 32
MAX_TICKET_BYTES = 16_384
#: ALPN of an admission: the first version, and the one that tells the relay's UDP port.
ADMISSION_PROTOCOL = "klinket-relay/1"
ADMISSION_PROTOCOL_2 = "klinket-relay/2"
#: Those that are understood, the best first.
ADMISSION_PROTOCOLS = (ADMISSION_PROTOCOL_2, ADMISSION_PROTOCOL)
#: Path of the relay's live channel at the controller.
RELAY_CHANNEL_PATH = "/api/klinket/v1/relay-channel"
#: Counters below the highest one seen by this much are refused, seen or not.
COUNTER_WINDOW = 1_024

_HELLO = struct.Struct(">BB16sQQ")
_ADMITTED = struct.Struct(">B16s32sQ")
HELLO_BYTES = _HELLO.size + 32
ADMITTED_BYTES = _ADMITTED.size
#: Bytes of the UDP port behind that.
PORT_BYTES = 2


class RelayRole(IntEnum):
    """Who opens a connection."""

    CLIENT = 1
    CONNECTOR = 2


class RelayAnswer(IntEnum):
    """The relay's one-byte answer. Numbers are never reused."""

    PAIRED = 1
    NO_CONNECTOR = 2
    UNKNOWN_ADMISSION = 3
    REPLAYED = 4
    LIMIT = 5
    NOT_ALLOWED = 6
    EXPIRED = 7
    DRAINING = 8
    TICKET_REFUSED = 9


class RelayError(KlinketError):
    """A relay refused; `answer` says why."""

    code = "relay-refused"

    def __init__(self, answer: RelayAnswer, message: str = "") -> None:
        super().__init__(message or f"the relay answered {answer.name.lower().replace('_', '-')}")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Admission:
    """What an admitted peer holds. `expires_at` in seconds since the epoch; `datagram_port`: the relay's UDP port, 0: none."""

    id: bytes
    key: bytes = field(repr=False)
    expires_at: float
    datagram_port: int = 0

    def encode(self, protocol: str = ADMISSION_PROTOCOL) -> bytes:
        """Return the relay's answer, as this version of admissions has it."""
        answer = _ADMITTED.pack(RelayAnswer.PAIRED, self.id, self.key, int(self.expires_at * 1000))
        return answer + self.datagram_port.to_bytes(PORT_BYTES, "big") if protocol == ADMISSION_PROTOCOL_2 else answer


def certificate_name(digest: str) -> str | None:
    """Return the server name (SNI) that asks a relay for the certificate of this digest; None for what is no SHA-256 in hex.

    A relay with a new certificate shows the former one to peers that were told of that only.
    """
    return f"{digest[:32]}.{digest[32:]}" if len(digest) == 64 else None  # a label has 63 characters at the most


def encode_ticket(ticket: str) -> bytes:
    """Return a framed ticket."""
    data = ticket.encode("ascii")
    return len(data).to_bytes(2, "big") + data


def admitted_bytes(protocol: str | None) -> int:
    """Return how long an admission of this version is."""
    return ADMITTED_BYTES + PORT_BYTES if protocol == ADMISSION_PROTOCOL_2 else ADMITTED_BYTES


def parse_admission(answer: bytes) -> Admission:
    """Return an admission of either version; raises ProtocolError."""
    if len(answer) not in (ADMITTED_BYTES, ADMITTED_BYTES + PORT_BYTES) or answer[0] != RelayAnswer.PAIRED:
        raise ProtocolError("the relay's admission is not understood")
    _, id, key, expires = _ADMITTED.unpack_from(answer)
    return Admission(id, key, expires / 1000, int.from_bytes(answer[ADMITTED_BYTES:], "big"))


@dataclass(frozen=True, slots=True)
class RelayHello:
    """The first bytes of a raw connection."""

    role: RelayRole
    admission: bytes
    counter: int
    connector: int

    def sign(self, key: bytes) -> bytes:
        """Return the hello with its HMAC, HELLO_BYTES long."""
        data = _HELLO.pack(VERSION, self.role, self.admission, self.counter, self.connector)
        return data + hmac.digest(key, data, "sha256")

    @classmethod
    def unverified(cls, data: bytes) -> RelayHello:
        """Return the fields of a hello whose HMAC nobody has checked; raises ProtocolError."""
        if len(data) != HELLO_BYTES:
            raise ProtocolError(f"relay hello of {len(data)} bytes instead of {HELLO_BYTES}")
        version, role, admission, counter, connector = _HELLO.unpack_from(data)
        if version != VERSION or role not in (RelayRole.CLIENT, RelayRole.CONNECTOR):
            raise ProtocolError("a relay hello of another version or role")
        return cls(RelayRole(role), admission, counter, connector)

    def verify(self, data: bytes, key: bytes) -> None:
        """Raise ProtocolError unless `data` carries the HMAC of `key`."""
        if not hmac.compare_digest(hmac.digest(key, data[: _HELLO.size], "sha256"), data[_HELLO.size :]):
            raise ProtocolError("the relay hello's HMAC is not valid")


# ---- live channel between relay and controller: JSON, tagged


class RelayMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the messages between a relay and the controller."""


class RelayReport(RelayMessage, frozen=True, kw_only=True, tag="relay-report"):
    """Relay to controller: first message, and then every RELAY_REPORT_SECONDS. `address` is what peers dial."""

    address: str
    certificate_sha256: str
    version: str
    pairs: int = 0
    waiting: int = 0


class RelayConfiguration(RelayMessage, frozen=True, kw_only=True, tag="relay-configuration"):
    """Controller to relay: who it is, and the keys that sign tickets (JWK set). Sent first and at each change."""

    relay: int
    network: str
    ticket_keys: dict[str, object]
    time_ms: int


RELAY_REPORT_SECONDS = 10.0
#: A relay's channel without any message for this long is dead, on either side, in seconds; each report is answered.
RELAY_SILENCE_SECONDS = 35.0
_encoder = msgspec.json.Encoder()
_reports: msgspec.json.Decoder[RelayReport] = msgspec.json.Decoder(RelayReport)
_configurations: msgspec.json.Decoder[RelayConfiguration] = msgspec.json.Decoder(RelayConfiguration)


def encode(message: RelayMessage) -> str:
    """Return the JSON text of a message."""
    return _encoder.encode(message).decode()


def decode_report(text: str | bytes) -> RelayReport:
    """Parse what a relay sent; raises ProtocolError."""
    try:
        return _reports.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProtocolError(f"relay report: {error}") from error


def decode_configuration(text: str | bytes) -> RelayConfiguration:
    """Parse what the controller sent to a relay; raises ProtocolError."""
    try:
        return _configurations.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProtocolError(f"relay configuration: {error}") from error
