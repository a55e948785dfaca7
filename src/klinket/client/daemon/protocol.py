"""What commands say to the daemon on its control socket, and what it answers: one line of JSON each, then the end.

Every request names its version. Fields are only ever added, with a default. Sizes are bounded on both sides.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from klinket.domain.errors import KlinketError, ProtocolError

VERSION = 1
#: Bytes of a request, and of an answer (ten thousand resources with the longest names fit).
MAX_REQUEST_BYTES = 65_536
MAX_ANSWER_BYTES = 16 * 1024 * 1024
#: Verbs that every user of the machine may use; all others are root's, and the daemon's own user's.
READ_VERBS = frozenset({"status", "resources", "wait"})
CONTROL_VERBS = frozenset({"reload", "stop"})
#: Seconds for which `reload` waits until the new key is in use, or is not.
RELOAD_SECONDS = 45.0


class NeedsRoot(KlinketError):
    """Only root, or the user the daemon runs as, may do this."""

    code = "needs-root"
    default_hint = "run it as root: sudo klinket ..."


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`resources` and `timeout` (seconds) belong to `wait`."""

    version: int
    verb: str
    resources: list[str] = []
    timeout: float = 0.0


class NetworkRow(msgspec.Struct, frozen=True, kw_only=True):
    """A remote network in which something is granted. `resource` names it: clients are not told its own name."""

    resource: str
    reached: bool
    problem: str = ""


class ResourceRow(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    address: str
    alias: str | None = None
    visible: bool = True


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `klinket status` tells; `state` is a word of states.State. Times are seconds, `since` of the epoch."""

    state: str
    reason: str = ""
    next_step: str = ""
    version: str = ""
    pid: int = 0
    since: float = 0.0
    network: str = ""
    service_account: str = ""
    key: str = ""
    key_expires_at: str | None = None
    session: str = ""
    controller: str = ""
    capture: str = ""
    rules: bool = False
    dns: bool = False
    proxies: list[str] = []
    networks: list[NetworkRow] = []
    resources: int = 0
    flows: int = 0
    retiring_sessions: int = 0
    problems: list[str] = []


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`code`, `message`, `hint`: of the error when it is not `ok`; otherwise `message` may say what was done."""

    version: int
    ok: bool
    code: str = ""
    message: str = ""
    hint: str = ""
    status: StatusReport | None = None
    resources: list[ResourceRow] = []


_T = TypeVar("_T", bound=msgspec.Struct)
_encoder = msgspec.json.Encoder()
_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_answers: msgspec.json.Decoder[Answer] = msgspec.json.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """Return the line of a message, with its end."""
    return _encoder.encode(message) + b"\n"


def decode_request(line: bytes) -> Request:
    """Return the request in a line; raises ProtocolError, also for a version or verb this daemon does not know."""
    request = _decode(_requests, line, MAX_REQUEST_BYTES)
    if request.version != VERSION:
        raise ProtocolError(
            f"a request of version {request.version}, and this daemon knows {VERSION}",
            hint="command and daemon are of different releases: restart the daemon",
        )
    if request.verb not in READ_VERBS | CONTROL_VERBS:
        raise ProtocolError(f"no such verb: {request.verb[:40]!r}", hint="is the daemon older than the command? restart it")
    return request


def decode_answer(line: bytes) -> Answer:
    """Return the answer in a line; raises ProtocolError."""
    return _decode(_answers, line, MAX_ANSWER_BYTES)


def refusal(error: KlinketError) -> Answer:
    """Return the answer that tells an error."""
    word = getattr(getattr(error, "failure", None), "value", None) or error.code
    return Answer(version=VERSION, ok=False, code=word, message=error.message, hint=error.hint)


def _decode(decoder: msgspec.json.Decoder[_T], line: bytes, limit: int) -> _T:
    if len(line) > limit:
        raise ProtocolError(f"a message of {len(line)} bytes, the limit is {limit}")
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProtocolError(f"not understood: {error}") from None
