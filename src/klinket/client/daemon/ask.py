"""What a command does to reach the daemon. Blocking, and with few imports: `klinket status` is called often."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from klinket.client.daemon import pid_file, protocol
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.protocol import Answer, Request, StatusReport
from klinket.client.daemon.states import State
from klinket.client.key_source import is_in_environment
from klinket.domain import errors
from klinket.domain.errors import FlowRefused, InvalidInput, KlinketError
from klinket.domain.flow import FlowFailure

#: Seconds a daemon may take to answer, beyond what the request itself waits for.
ANSWER_SECONDS = 10.0


#: Seconds that `wait` gives a daemon to appear, started just before or beside it.
APPEAR_SECONDS = 5.0


class NotRunning(KlinketError):
    """There is no daemon to ask."""

    code = "not-running"
    default_hint = "klinket start"


class NotAnswering(KlinketError):
    """A daemon is there, or was just now, and does not answer."""

    code = "not-answering"
    default_hint = "try again; if it stays: klinket stop, then klinket start"


_KINDS: dict[str, type[KlinketError]] = {
    kind.code: kind
    for kind in (
        errors.ServiceKeyInvalid,
        errors.ServiceKeyUnknown,
        errors.ServiceKeyRevoked,
        errors.ServiceKeyExpired,
        errors.AssertionStale,
        errors.SessionOver,
        errors.AuthenticationFailed,
        errors.Throttled,
        errors.ControllerUnreachable,
        errors.CaptureImpossible,
        errors.ProtocolError,
        protocol.NeedsRoot,
    )
}


def ask(paths: Paths, verb: str, *resources: str, timeout: float = 0.0) -> Answer:
    """Return the daemon's answer; raises NotRunning, NotAnswering, or the error it tells. `timeout`: seconds `wait` may take."""
    request = Request(version=protocol.VERSION, verb=verb, resources=list(resources), timeout=timeout)
    line = protocol.encode(request)
    if len(line) > protocol.MAX_REQUEST_BYTES:
        raise InvalidInput("resource", "too many, or too long")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_SECONDS + timeout)
            connection.connect(str(paths.socket))
            connection.sendall(line)
            received = _whole_answer(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        if pid_file.holder(paths.pid_file) is None:
            raise NotRunning("the klinket daemon is not running") from None
        raise NotAnswering("the daemon is starting or ending") from None
    except (OSError, TimeoutError) as error:
        raise NotAnswering(f"the daemon does not answer: {error}") from None
    if not received:
        raise NotAnswering("the daemon ended while it was asked, or has too many to answer")
    answer = protocol.decode_answer(received)
    if not answer.ok:
        raise _told(answer)
    return answer


def _whole_answer(connection: socket.socket) -> bytes:
    parts, size = [], 0
    while part := connection.recv(65_536):
        parts.append(part)
        size += len(part)
        if size > protocol.MAX_ANSWER_BYTES or part.endswith(b"\n"):
            break
    return b"".join(parts)


def _told(answer: Answer) -> KlinketError:
    hint = answer.hint or None
    if answer.code in _KINDS:
        return _KINDS[answer.code](answer.message, hint=hint)
    if answer.code == InvalidInput.code:
        return InvalidInput("daemon", answer.message, hint=hint)
    try:
        return FlowRefused(FlowFailure(answer.code), answer.message, hint=hint)
    except ValueError:
        return KlinketError(answer.message, hint=hint)


def status(paths: Paths) -> StatusReport:
    """Return what the daemon says of itself, or what is to be said where there is none or it is silent."""
    try:
        answer = ask(paths, "status")
    except NotRunning as error:
        if not paths.key_file.exists() and not is_in_environment():
            return _without(State.UNINITIALIZED, "there is no service key", "klinket setup --headless FILE")
        return _without(State.NOT_RUNNING, error.message, error.hint)
    except NotAnswering as error:
        return _without(State.NOT_ANSWERING, error.message, error.hint)
    assert answer.status is not None, "an answer to `status` has one"
    return answer.status


def wait(paths: Paths, resources: Sequence[str], timeout: float) -> StatusReport:
    """Return the status once all is well; raises what is missing. One that is being started may appear within APPEAR_SECONDS."""
    deadline = time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        try:
            answer = ask(paths, "wait", *resources, timeout=left)
        except (NotRunning, NotAnswering) as error:
            patience = left if isinstance(error, NotAnswering) else left - max(0.0, timeout - APPEAR_SECONDS)
            if patience <= 0.0:
                raise
            time.sleep(min(patience, 0.1))
        else:
            assert answer.status is not None, "an answer to `wait` has one"
            return answer.status


def _without(state: State, reason: str, next_step: str) -> StatusReport:
    return StatusReport(state=state.value, reason=reason, next_step=next_step)
