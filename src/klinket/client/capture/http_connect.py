"""The HTTP side of a local proxy, without sockets: CONNECT (RFC 9110 §9.3.6) and requests in absolute form (RFC 9112 §3.2.2)."""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64decode
from dataclasses import dataclass

from klinket.domain.address import canonical_host
from klinket.domain.errors import FlowRefused, InvalidInput, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol

#: Bytes of a request head, up to and with the empty line.
MAX_HEAD_BYTES = 16_384

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_CONNECT = re.compile(rb"CONNECT (\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5}) HTTP/1\.[01]")
_ABSOLUTE = re.compile(
    rb"([A-Z]{1,20}) http://(\[[0-9a-fA-F:.]+\]|[^\s:/@?#\[\]]+)(?::([0-9]{1,5}))?([/?][^\s#]*)? (HTTP/1\.[01])", re.IGNORECASE
)
#: Fields that concern the connection with the proxy only (RFC 9110 §7.6.1).
_HOP_FIELDS = (b"connection:", b"proxy-connection:", b"proxy-authorization:", b"keep-alive:")

_AUTHORIZATION = re.compile(rb"^proxy-authorization:[ \t]*(basic|bearer)[ \t]+([^\s]+)[ \t]*\r$", re.IGNORECASE | re.MULTILINE)

_STATUS: dict[FlowFailure, str] = {
    FlowFailure.NOT_GRANTED: "403 Not Granted",
    FlowFailure.SERVICE_KEY_REVOKED: "403 Service Key Revoked",
    FlowFailure.SERVICE_KEY_EXPIRED: "403 Service Key Expired",
    FlowFailure.GRANT_EXPIRED: "403 Grant Expired",
    FlowFailure.ADDRESS_FORBIDDEN: "403 Address Forbidden",
    FlowFailure.CUT: "403 Cut",
    FlowFailure.THROTTLED: "429 Too Many Requests",
    FlowFailure.NAME_NOT_FOUND: "502 Name Not Found",
    FlowFailure.REFUSED: "502 Connection Refused",
    FlowFailure.UNREACHABLE: "502 Unreachable",
    FlowFailure.RESET: "502 Reset",
    FlowFailure.INTERNAL: "502 Connector Failed",
    FlowFailure.ICMP_UNAVAILABLE: "502 ICMP Unavailable",
    FlowFailure.NO_CONNECTOR: "503 No Connector",
    FlowFailure.DRAINING: "503 No Connector",
    FlowFailure.CONTROLLER_UNREACHABLE: "503 Controller Unreachable",
    FlowFailure.TIMED_OUT: "504 Gateway Timeout",
}


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """What a program asked for. `forward`: the request as the origin gets it, empty for CONNECT."""

    destination: Destination
    forward: bytes = b""


def parse_head(head: bytes) -> ProxyRequest:
    """Return the request of a head that ends with its empty line; raises ProtocolError."""
    line, _, rest = head.partition(b"\r\n")
    if match := _CONNECT.fullmatch(line):
        return ProxyRequest(_destination(match[1], match[2]))
    if match := _ABSOLUTE.fullmatch(line):
        method, host, port, path, version = match.groups()
        target = path or b"/"
        if target.startswith(b"?"):
            target = b"/" + target
        fields = [field for field in rest.split(b"\r\n") if field and not field.lower().startswith(_HOP_FIELDS)]
        # One request a connection: the next may be for another host.
        origin = b"\r\n".join([method + b" " + target + b" " + version, *fields, b"Connection: close", b"", b""])
        return ProxyRequest(_destination(host, port or b"80"), origin)
    raise ProtocolError("neither CONNECT host:port nor an http:// URL")


def _destination(host: bytes, port: bytes) -> Destination:
    if not 1 <= int(port) <= 65_535:
        raise ProtocolError(f"port {port.decode()} is not in 1-65535")
    try:
        return Destination(canonical_host(host.decode("ascii").strip("[]")), int(port), TransportProtocol.TCP)
    except (UnicodeDecodeError, InvalidInput):
        raise ProtocolError("the host is neither a name nor an address") from None


def shows(head: bytes, token: str) -> bool:
    """Return whether a head has the proxy's token: as the password of Basic, whatever the user (RFC 7617), or as Bearer."""
    for scheme, value in _AUTHORIZATION.findall(head):
        shown = value
        if scheme.lower() == b"basic":
            try:
                shown = b64decode(value, validate=True).partition(b":")[2]
            except binascii.Error:
                continue
        if hmac.compare_digest(shown, token.encode()):
            return True
    return False


def token_wanted() -> bytes:
    """Return the answer to a program that did not show the proxy's token (RFC 9110 §15.5.8)."""
    challenge = 'Proxy-Authenticate: Basic realm="klinket"\r\n'
    text = "this proxy wants its token: http://klinket:TOKEN@HOST:PORT"
    return _answer("407 Proxy Authentication Required", "proxy-token-wanted", text, challenge)


def refusal(error: FlowRefused) -> bytes:
    """Return the answer to a flow that was refused: a status, `Klinket-Error` with the code word, the sentence as body."""
    retry = f"Retry-After: {max(1, round(error.retry_after))}\r\n" if error.retry_after is not None else ""
    return _answer(_STATUS[error.failure], error.failure.value, str(error), retry)


def bad_request(message: str) -> bytes:
    """Return the answer to what is no request."""
    return _answer("400 Bad Request", "invalid-input", message)


def _answer(status: str, word: str, message: str, more: str = "") -> bytes:
    body = f"klinket: {word}: {message}\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\nKlinket-Error: {word}\r\n{more}Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii", "replace") + body
