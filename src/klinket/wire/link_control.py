"""Messages on a link's sealed control pipe, JSON in CONTROL frames (security.md 12; docs/reference/control.md)."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from klinket.domain.address import MAX_NAME_CHARS
from klinket.domain.errors import ProtocolError
from klinket.domain.printable import printable
from klinket.wire.datagram import RECEIVER_BYTES
from klinket.wire.link import RANDOM_BYTES
from klinket.wire.pipe_messages import MAX_MESSAGE_BYTES

#: A feature of connectors: they answer AskName.
ASK_NAME = "ask-name"
#: Another: they take pipes for paths of sealed datagrams at relays.
RELAY_DATAGRAMS = "relay-datagrams"
#: Bytes of all records of one answer, and characters of its text.
MAX_ANSWER_BYTES = 16 * 1024
MAX_TEXT_CHARS = 200
#: Records of one answer; a resolver's has no more that are read (wire.dns_answer).
MAX_ANSWER_RECORDS = 512


class LinkMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the messages."""


class PresentGrant(LinkMessage, frozen=True, kw_only=True, tag="present-grant"):
    """Client: part `part` of `parts` of a grant token; a large token takes several frames."""

    token: str
    part: int = 0
    parts: int = 1


class CloseLink(LinkMessage, frozen=True, kw_only=True, tag="close-link"):
    """Client: the session is over, forget this link."""


class AskName(LinkMessage, frozen=True, kw_only=True, tag=ASK_NAME):
    """Client: what does a resolver on the connector's side say of this canonical name? `id` comes again in the answer."""

    id: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARS)]
    record_type: Annotated[int, msgspec.Meta(ge=1, lt=2**16)]


class NameAnswer(LinkMessage, frozen=True, kw_only=True, tag="name-answer"):
    """Connector: `code` is an RCODE, `records` the data of all records of the type asked for, no name in it compressed.

    `seconds`: for which they may be kept. `text`: why there is no answer, for people.
    """

    id: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    code: Annotated[int, msgspec.Meta(ge=0, lt=16)]
    seconds: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    records: Annotated[list[bytes], msgspec.Meta(max_length=MAX_ANSWER_RECORDS)] = []
    text: Annotated[str, msgspec.Meta(max_length=MAX_TEXT_CHARS)] = ""


class Ping(LinkMessage, frozen=True, kw_only=True, tag="ping"):
    """Client: answer at once, whatever else there is to do."""


class Pong(LinkMessage, frozen=True, kw_only=True, tag="pong"):
    """Connector: it is there. `load`: percent of a processor that it uses, 0 to 100; clients choose by it."""

    load: int = 0


class OpenDatagrams(LinkMessage, frozen=True, kw_only=True, tag="open-datagrams"):
    """Client: open a sealed datagram path, in the place of the session's former one. Both in hexadecimal digits.

    `receiver` (7 bytes): the index by which the client knows it; `random` (32 bytes): fresh.
    """

    receiver: str
    random: str

    def path(self) -> tuple[bytes, bytes]:
        """Return receiver and random as bytes; raises ProtocolError."""
        return _path(self.receiver, self.random)


class CloseDatagrams(LinkMessage, frozen=True, kw_only=True, tag="close-datagrams"):
    """Client: nothing comes on the path of this link any more, or no flow needs it: all goes as frames."""


class DatagramsOpened(LinkMessage, frozen=True, kw_only=True, tag="datagrams-opened"):
    """Connector: the path is open, at its UDP port; as in OpenDatagrams."""

    receiver: str
    random: str

    def path(self) -> tuple[bytes, bytes]:
        """Return receiver and random as bytes; raises ProtocolError."""
        return _path(self.receiver, self.random)


class NoDatagrams(LinkMessage, frozen=True, kw_only=True, tag="no-datagrams"):
    """Connector: there is no such path here; datagrams go as frames."""


class GrantAccepted(LinkMessage, frozen=True, kw_only=True, tag="grant-accepted"):
    """Connector: flows are checked against this grant from now on."""

    revision: int
    expires_at_ms: int
    #: What else this connector understands, by the words above; one of an earlier version says nothing, and would end the pipe.
    features: list[str] = []


class GrantRefused(LinkMessage, frozen=True, kw_only=True, tag="grant-refused"):
    """Connector: the grant does not count; `code` is a code of domain.errors or a FlowFailure word."""

    code: str
    message: str


class Drain(LinkMessage, frozen=True, kw_only=True, tag="drain"):
    """Connector: open new flows elsewhere; this one is going away."""


#: Characters of a token in one frame, and parts of one token.
PART_CHARS = 128 * 1024
MAX_PARTS = 32

FromClient = PresentGrant | CloseLink | AskName | Ping | OpenDatagrams | CloseDatagrams
FromConnector = GrantAccepted | GrantRefused | Drain | NameAnswer | Pong | DatagramsOpened | NoDatagrams
_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_from_client: msgspec.json.Decoder[FromClient] = msgspec.json.Decoder(FromClient)
_from_connector: msgspec.json.Decoder[FromConnector] = msgspec.json.Decoder(FromConnector)


def encode(message: LinkMessage) -> bytes:
    """Return the JSON of a message."""
    return _encoder.encode(message)


def decode_from_client(data: bytes) -> FromClient:
    """Parse what a client sent; raises ProtocolError."""
    return _decode(_from_client, data)


def decode_from_connector(data: bytes) -> FromConnector:
    """Parse what a connector sent; raises ProtocolError. What it says for people can be shown and logged."""
    message = _decode(_from_connector, data)
    if isinstance(message, NameAnswer) and message.text:
        return msgspec.structs.replace(message, text=printable(message.text))
    if isinstance(message, GrantRefused):
        shown = printable(message.code[:MAX_MESSAGE_BYTES]), printable(message.message[:MAX_MESSAGE_BYTES])
        return GrantRefused(code=shown[0], message=shown[1])
    return message


def present(token: str) -> list[PresentGrant]:
    """Return the messages that carry a grant token."""
    chunks = [token[at : at + PART_CHARS] for at in range(0, len(token), PART_CHARS)]
    return [PresentGrant(token=chunk, part=number, parts=len(chunks)) for number, chunk in enumerate(chunks)]


class GrantParts:
    """Puts the parts of a grant token together again."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    @property
    def incomplete(self) -> bool:
        """Return whether some parts of a token are there, and others not yet."""
        return bool(self._parts)

    def add(self, message: PresentGrant) -> str | None:
        """Return the whole token with its last part; raises ProtocolError for parts out of order or above PART_CHARS."""
        if len(message.token) > PART_CHARS:
            raise ProtocolError(f"a part of a grant is above {PART_CHARS} characters")
        if not 0 < message.parts <= MAX_PARTS or message.part != len(self._parts) or message.part >= message.parts:
            raise ProtocolError("the parts of a grant are out of order")
        self._parts.append(message.token)
        if len(self._parts) < message.parts:
            return None
        token = "".join(self._parts)
        self._parts.clear()
        return token


def _path(receiver: str, random: str) -> tuple[bytes, bytes]:
    try:
        path = bytes.fromhex(receiver), bytes.fromhex(random)
    except ValueError as error:
        raise ProtocolError("a datagram path that is not hexadecimal") from error
    if path[0].hex() != receiver or path[1].hex() != random or (len(path[0]), len(path[1])) != (RECEIVER_BYTES, RANDOM_BYTES):
        raise ProtocolError("a datagram path of other lengths, or not in lower-case digits")
    return path


def _decode(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"link message: {error}") from error
