"""The way to the controller, step by step, each only when the one before has succeeded."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from cryptography import x509

from klinket.doctor import certificates, clock
from klinket.doctor.finding import Finding, Outcome, fail, ok, warn
from klinket.net import sockets
from klinket.net.sockets import HostPort
from klinket.net.tls import TLS_TOO_OLD, is_too_old

_HTTPS_PORT = 443
#: Seconds for a name above which a resolver is worth a look.
SLOW_NAME_SECONDS = 2.0
MAX_ANSWER_BYTES = 65_536
_RENEW = "renew the controller's certificate (--certificate), or start it again: it then makes one of its own authority"


def probe(url: str, context: ssl.SSLContext, seconds: float) -> Iterator[Finding]:
    """Yield `dns`, `port`, `certificate`, `answer`, `clock`, `controller-ready`, up to the first that fails.

    `seconds`: for each step.
    """
    parts = urlsplit(url)
    address = HostPort(parts.hostname or "", parts.port or _HTTPS_PORT)
    resolved = _resolved(address, seconds)
    yield resolved
    if resolved.outcome is Outcome.FAIL:
        return
    try:
        raw = sockets.create_connection((address.host, address.port), seconds)
    except OSError as error:
        next = "is the controller up, is its port right, does a firewall stop outbound TCP?"
        yield fail("port", f"{address}: {_why(error)}", next)
        return
    yield ok("port", f"{address} accepts connections")
    try:
        tls = context.wrap_socket(raw, server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        raw.close()
        next = (
            "give --ca the controller's own authority (controller-ca.pem of its state folder), and the name of its --public-url"
        )
        yield fail("certificate", f"it is not trusted: {error.verify_message}", next)
        return
    except OSError as error:
        raw.close()
        next = TLS_TOO_OLD if is_too_old(error) else "is this the controller's HTTPS port, without a proxy between?"
        yield fail("certificate", f"no TLS: {_why(error)}", next)
        return
    with tls:
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        certificate = x509.load_der_x509_certificate(der)
        now = datetime.datetime.now(datetime.UTC)
        yield certificates.lasts("certificate", f"the one of {address.host} ({tls.version()})", certificate, now, _RENEW)
        yield from _answers(tls, address)


def _resolved(address: HostPort, seconds: float) -> Finding:
    answer: list[object] = []

    def look() -> None:
        try:
            found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            answer.append(sorted({str(entry[4][0]) for entry in found}))
        except OSError as error:
            answer.append(error)

    begun = time.monotonic()
    thread = threading.Thread(target=look, daemon=True)  # getaddrinfo knows no time limit
    thread.start()
    thread.join(seconds)
    next = "resolvectl query, /etc/resolv.conf: does this machine's resolver know the name?"
    if not answer:
        return fail("dns", f"{address.host}: no answer in {seconds:.0f} s", next)
    if not isinstance(answer[0], list):
        return fail("dns", f"{address.host}: {getattr(answer[0], 'strerror', None) or answer[0]}", next)
    took = time.monotonic() - begun
    text = f"{address.host} is {', '.join(answer[0])}"
    if took > SLOW_NAME_SECONDS:
        return warn("dns", f"{text}, after {took:.1f} s", "the resolvers in /etc/resolv.conf: one of them is slow, or away")
    return ok("dns", text)


def _answers(tls: ssl.SSLSocket, address: HostPort) -> Iterator[Finding]:
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.auto_open = 0  # never again on its own, and without TLS
    connection.sock = tls
    other = "another server answers there: look at the URL, and for proxies in between"
    try:
        connection.request("GET", "/", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        own, told = time.time(), email.utils.parsedate_to_datetime(answer.headers.get("Date", ""))
        body = _object(answer)
        if body.get("product") != "klinket":
            yield fail("answer", f"no controller of klinket: {answer.status}", other)
            return
        yield ok("answer", f"the controller of network {_plain(body.get('network'), 63)} answers")
        yield clock.against(own, told.timestamp())
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        yield ready("controller-ready", "the controller", answer.status, _object(answer))
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        yield fail("answer", f"no HTTP answer: {_why(error)}", other)
    finally:
        connection.close()


def ready(name: str, who: str, status: int, body: dict[str, object]) -> Finding:
    """Return the finding called `name` of an answer of /ready. `who`: has answered."""
    if status == 200:
        return ok(name, f"{who} is ready")
    reasons = body.get("reasons")
    told = [one for one in reasons if isinstance(one, dict)] if isinstance(reasons, list) else []
    text = "; ".join(f"{_plain(one.get('code'), 40)}: {_plain(one.get('text'), 200)}" for one in told) or f"HTTP {status}"
    return fail(name, f"{who} is not ready: {text}", "docs/reference/metrics.md says what each word means; its log says more")


def own_ready(address: HostPort, seconds: float) -> Finding:
    """Return `ready` of the part whose --metrics are at an address."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=seconds)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        return ready("ready", f"the part at {address}", answer.status, _object(answer))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return fail("ready", f"the part at {address} does not answer: {_why(error)}", "does it run, with this --metrics?")
    finally:
        connection.close()


def _object(answer: http.client.HTTPResponse) -> dict[str, object]:
    try:
        found = json.loads(answer.read(MAX_ANSWER_BYTES))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _plain(value: object, chars: int) -> str:
    """Return a text that somebody else wrote so that it can be shown on a terminal."""
    return "".join(one if one.isprintable() else "?" for one in str(value)[:chars])


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
