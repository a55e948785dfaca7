"""The SOCKS side of a local proxy, without sockets: version 5, CONNECT, a token where one is set (RFC 1928, 1929)."""

from __future__ import annotations

import hmac
import socket
from enum import IntEnum

from klinket.domain.address import canonical_host
from klinket.domain.errors import FlowRefused, InvalidInput, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol

VERSION = 5
#: Answers to the greeting.
NO_AUTHENTICATION = bytes([VERSION, 0])
PASSWORD = bytes([VERSION, 2])
NO_METHOD = bytes([VERSION, 0xFF])
CONNECT = 1
#: The version of a user name and password, and the answers to them (RFC 1929 §2).
PASSWORD_VERSION = 1
PASSWORD_TAKEN = bytes([PASSWORD_VERSION, 0])
PASSWORD_REFUSED = bytes([PASSWORD_VERSION, 1])
#: Bytes of a request before its address.
REQUEST_HEAD_BYTES = 4


class Reply(IntEnum):
    """RFC 1928 §6."""

    SUCCEEDED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


_REPLIES: dict[FlowFailure, Reply] = {
    FlowFailure.NOT_GRANTED: Reply.NOT_ALLOWED,
    FlowFailure.SERVICE_KEY_REVOKED: Reply.NOT_ALLOWED,
    FlowFailure.SERVICE_KEY_EXPIRED: Reply.NOT_ALLOWED,
    FlowFailure.GRANT_EXPIRED: Reply.NOT_ALLOWED,
    FlowFailure.ADDRESS_FORBIDDEN: Reply.NOT_ALLOWED,
    FlowFailure.CUT: Reply.NOT_ALLOWED,
    FlowFailure.NAME_NOT_FOUND: Reply.HOST_UNREACHABLE,
    FlowFailure.UNREACHABLE: Reply.HOST_UNREACHABLE,
    FlowFailure.REFUSED: Reply.REFUSED,
    FlowFailure.TIMED_OUT: Reply.TTL_EXPIRED,
}


def accepts_no_authentication(methods: bytes) -> bool:
    """Return whether the program offers to go without authentication: the proxy listens on loopback only."""
    return 0 in methods


def offers_password(methods: bytes) -> bool:
    """Return whether the program offers to show a user name and password."""
    return 2 in methods


def shows(password: bytes, token: str) -> bool:
    """Return whether the password is the proxy's token; the user name may be any."""
    return hmac.compare_digest(password, token.encode())


def address_length(kind: int, first: int) -> int:
    """Return the bytes of address and port after the first address byte; raises ProtocolError for unknown kinds."""
    match kind:
        case 1:
            return 3 + 2
        case 3:
            return first + 2
        case 4:
            return 15 + 2
    raise ProtocolError(f"address type {kind}")


def parse_destination(kind: int, first: int, rest: bytes) -> Destination:
    """Return where a CONNECT request wants to go; raises ProtocolError."""
    address, port = rest[:-2], int.from_bytes(rest[-2:])
    try:
        if kind == 1:
            host = socket.inet_ntop(socket.AF_INET, bytes([first]) + address)
        elif kind == 4:
            host = socket.inet_ntop(socket.AF_INET6, bytes([first]) + address)
        else:
            host = address.decode("ascii")
        if not port:
            raise ValueError
        return Destination(canonical_host(host), port, TransportProtocol.TCP)
    except (ValueError, InvalidInput):
        raise ProtocolError("not a name or address with a port") from None


def whole_request(received: bytes) -> tuple[Destination, int] | None:
    """Return where a greeting and a CONNECT request that came together lead, and their length.

    None for all else, also for what is wrong: that is read step by step, and answered where it is wrong.
    """
    greeting = 2 + received[1] if len(received) > 1 else 0
    address = greeting + REQUEST_HEAD_BYTES
    if len(received) <= address or received[0] != VERSION or 0 not in received[2:greeting]:
        return None
    if received[greeting] != VERSION or received[greeting + 1] != CONNECT:
        return None
    try:
        end = address + 1 + address_length(received[address - 1], received[address])
        if len(received) < end:
            return None
        return parse_destination(received[address - 1], received[address], received[address + 1 : end]), end
    except ProtocolError:
        return None


def reply(code: Reply) -> bytes:
    """Return a reply; the bound address in it is of no use to anybody and is all zeroes."""
    return bytes([VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0])


def refusal(error: FlowRefused) -> bytes:
    """Return the reply to a flow that was refused."""
    return reply(_REPLIES.get(error.failure, Reply.FAILED))
