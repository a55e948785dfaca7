"""Logging in with a service key: an assertion and a certificate request, against a session (RFC 7523)."""

from __future__ import annotations

import logging
import platform
import socket
import ssl
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

from klinket.domain import errors
from klinket.domain.errors import AuthenticationFailed, ControllerUnreachable, KlinketError, NotTheController, Throttled
from klinket.net.certificate_request import certificate_request
from klinket.net.clock import entropy, monotonic, wall
from klinket.net.request import Answer, post
from klinket.wire import assertion, signing
from klinket.wire.key_file import KeyFile
from klinket.wire.paths import LOGOUT_PATH
from klinket.wire.version import PRODUCT_VERSION

logger = logging.getLogger(__name__)

#: Seconds by which this machine's clock may be off, and an assertion is signed for the controller's time instead. What is signed
#: for a time to come could be used then: so it is not signed for any.
MAX_CLOCK_DIFFERENCE_SECONDS = 86_400.0
#: Seconds for each step of ending a session without a channel: nobody waits long for what ends by itself, too.
LOGOUT_SECONDS = 3.0
_REFUSALS: dict[str, type[AuthenticationFailed]] = {
    kind.code: kind
    for kind in (
        errors.ServiceKeyInvalid,
        errors.ServiceKeyUnknown,
        errors.ServiceKeyRevoked,
        errors.ServiceKeyExpired,
        errors.AssertionStale,
        errors.AssertionReplayed,
        errors.SessionOver,
    )
}


@dataclass(slots=True)
class Session:
    """A session and what it holds; renewed with the same key, which never leaves memory.

    `time_ms`: the controller's time at `told_at`, in monotonic seconds; `copied`: its machine was copied, and it is not to be
    used any more.
    """

    id: str
    network: str
    key: signing.PrivateKey = field(repr=False)
    certificate: str
    access_token: str = field(repr=False)
    expires_at_ms: int
    time_ms: int
    copied: bool = False
    told_at: float = field(default_factory=monotonic)


def refusal(code: str, message: str, hint: str = "", retry_after: float | None = None) -> KlinketError:
    """Return the error that a code word of the controller stands for.

    A code word that says nothing about the key or the session (the controller is overloaded, is being stopped, failed inside, or
    is newer than this client) is ControllerUnreachable: waiting may help, and no access is given up for it.
    """
    if code == Throttled.code:
        return Throttled(message, hint=hint, retry_after=retry_after)
    kind = _REFUSALS.get(code)
    if kind is None:
        return ControllerUnreachable(
            message or f"the controller cannot serve this now ({code})",
            hint=hint or "look at the controller's log",
            retry_after=retry_after,
        )
    return kind(message, hint=hint or None)


async def log_in(key_file: KeyFile, context: ssl.SSLContext) -> Session:
    """Return a new session; raises AuthenticationFailed, Throttled or ControllerUnreachable.

    Where this machine's clock and the controller's differ, up to MAX_CLOCK_DIFFERENCE_SECONDS, the controller's counts.
    """
    session_key = signing.generate_private_key()
    answer = await _ask(key_file, session_key, context, wall())
    if answer.status == 401 and answer.text("code") == errors.AssertionStale.code:
        theirs = _time_of(answer)
        if theirs is not None and abs(theirs - wall()) <= MAX_CLOCK_DIFFERENCE_SECONDS:
            logger.warning("this machine's clock and that of %s differ by %.0f s", key_file.network, wall() - theirs)
            answer = await _ask(key_file, session_key, context, theirs)
    if answer.status != 200:
        raise _told(answer, key_file)
    try:
        return Session(
            id=str(answer.body["session"]),
            network=str(answer.body["network"]),
            key=session_key,
            certificate=str(answer.body["certificate"]),
            access_token=str(answer.body["access_token"]),
            expires_at_ms=int(answer.body["expires_at_ms"]),
            time_ms=int(answer.body["time_ms"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ControllerUnreachable(f"the answer of {key_file.network} is not understood") from error


async def _ask(key_file: KeyFile, session_key: signing.PrivateKey, context: ssl.SSLContext, now: float) -> Answer:
    return await post(
        f"https://{key_file.network}",
        key_file.login_path,
        {
            "grant_type": assertion.GRANT_TYPE,
            "assertion": _assertion(key_file, session_key, key_file.login_url, assertion.LOGIN_TYP, now),
            "certificate_request": certificate_request(session_key),
            "client": {
                "version": PRODUCT_VERSION,
                "hostname": socket.gethostname(),
                "os": platform.system(),
            },
        },
        context,
    )


def _time_of(answer: Answer) -> float | None:
    """Return the controller's time, in seconds since the epoch, if a refusal tells it."""
    time_ms = answer.body.get("time_ms")
    return time_ms / 1000 if isinstance(time_ms, int) and 0 <= time_ms < 1 << 53 else None


async def log_out(key_file: KeyFile, session: Session, context: ssl.SSLContext, now: float | None = None) -> None:
    """End a session whose channel is gone; raises ControllerUnreachable. `now`: the controller's time, where it is known."""
    url = f"https://{key_file.network}"
    theirs = session.time_ms / 1000 + monotonic() - session.told_at if now is None else now
    body = {"assertion": _assertion(key_file, session.key, url + LOGOUT_PATH, assertion.END_TYP, theirs)}
    await post(url, LOGOUT_PATH, body, context, LOGOUT_SECONDS)


def _assertion(key_file: KeyFile, session_key: signing.PrivateKey, audience: str, typ: str, now: float) -> str:
    return assertion.sign_assertion(
        signing.SigningKey(key_file.key_id, key_file.private_key),
        key_file.service_account_id,
        audience,
        signing.thumbprint(session_key.public_key()),
        now=now,
        jti=urlsafe_b64encode(entropy(16)).decode(),
        typ=typ,
    )


def _told(answer: Answer, key_file: KeyFile) -> KlinketError:
    code, message, hint = answer.text("code"), answer.text("message"), answer.text("hint")
    if not code:
        kind = ControllerUnreachable if answer.status >= 500 else NotTheController  # a proxy before it says 502
        return kind(
            f"{key_file.network} answered {answer.status}, and not as a klinket controller does",
            hint="check the key file's `network` field",
        )
    if answer.status == 404:
        hint = "check the key file's `network` and `login_path` fields"
        return NotTheController(f"{key_file.network} has no {key_file.login_path}", hint=hint)
    if answer.status == 401 and code not in _REFUSALS:
        # The key proved nothing there: what exactly was wrong is the controller's to know.
        return errors.ServiceKeyInvalid(message or f"the controller refused ({code})", hint=hint or None)
    if answer.status >= 500:  # nothing was said of the key, whatever the code word
        return ControllerUnreachable(message, hint=hint, retry_after=answer.retry_after)
    return refusal(code, message, hint, answer.retry_after)
