"""Refusals of the controller become errors of one kind each, over real HTTPS."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import trustme

from klinket.client.login import LOGOUT_PATH, MAX_CLOCK_DIFFERENCE_SECONDS, log_in, log_out, refusal
from klinket.domain import errors
from klinket.domain.errors import AuthenticationFailed, ControllerUnreachable, KlinketError, Throttled
from klinket.net.channel import controller_context
from klinket.wire import assertion, signing
from klinket.wire.key_file import KeyFile

PRIVATE_KEY = signing.generate_private_key()
KINDS = [
    errors.ServiceKeyInvalid,
    errors.ServiceKeyUnknown,
    errors.ServiceKeyRevoked,
    errors.ServiceKeyExpired,
    errors.AssertionStale,
    errors.AssertionReplayed,
    errors.SessionOver,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_each_code_word_is_its_error(kind: type[AuthenticationFailed]) -> None:
    error = refusal(kind.code, "said so", "do this")
    assert type(error) is kind
    assert (error.message, error.hint) == ("said so", "do this")
    assert refusal(kind.code, "said so").hint == kind.default_hint


def test_throttled_says_when_to_come_back() -> None:
    error = refusal("throttled", "too many sessions", "", 7.5)
    assert isinstance(error, Throttled)
    assert error.retry_after == 7.5


@pytest.mark.parametrize(
    "code", ["", "something-new", "internal", "store-overloaded", "store-closed", "flow-refused", "__class__"]
)
def test_a_code_word_that_says_nothing_of_the_key_is_no_refusal(code: str) -> None:
    error = refusal(code, "not now", retry_after=2.0)
    assert isinstance(error, ControllerUnreachable), "a client gives its access up for a refusal"
    assert (error.message, error.retry_after) == ("not now", 2.0)
    assert code in refusal(code, "").message


@dataclass
class Controller:
    """Answers every request with one status and body, once those of `before` are used up; keeps what was asked."""

    key_file: KeyFile
    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: Statuses and bodies that are answered first.
    before: list[tuple[int, object]] = field(default_factory=list)

    def answers(self, status: int, body: object, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    @property
    def context(self) -> ssl.SSLContext:
        return controller_context(self.key_file.controller_ca)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def controller(authority: trustme.CA) -> Iterator[Controller]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.append((self.path, json.loads(body)))
            status, answer = made.status, made.body
            if made.before:
                status, told = made.before.pop(0)
                answer = json.dumps(told).encode()
            self.send_response(status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    key_file = KeyFile(
        f"127.0.0.1:{server.server_port}",
        "11111111-2222-4333-8444-555555555555",
        "key-1",
        signing.private_key_to_pem(PRIVATE_KEY),
        controller_ca=authority.cert_pem.bytes().decode(),
    )
    made = Controller(key_file)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


SESSION = {
    "session": "s" * 22,
    "network": "acme",
    "certificate": "PEM",
    "access_token": "sesame",
    "expires_at_ms": 2_000_000,
    "time_ms": 1_000_000,
}


async def told(controller: Controller) -> KlinketError:
    with pytest.raises(KlinketError) as caught:
        await log_in(controller.key_file, controller.context)
    return caught.value


@pytest.mark.parametrize("off", [3_600.0, -3_600.0, MAX_CLOCK_DIFFERENCE_SECONDS - 60])
async def test_a_login_of_another_time_is_made_again_for_the_controllers(controller: Controller, off: float) -> None:
    theirs = time.time() + off
    controller.answers(200, SESSION)
    controller.before.append((401, {"code": "assertion-stale", "message": "off", "time_ms": round(theirs * 1000)}))
    assert (await log_in(controller.key_file, controller.context)).id == SESSION["session"]
    first, second = (
        signing.verify_signature(body["assertion"], PRIVATE_KEY.public_key(), assertion.LOGIN_TYP) for _, body in controller.asked
    )
    assert second["iat"] == pytest.approx(theirs, abs=2)
    assert first["jti"] != second["jti"]
    assert first["cnf"] == second["cnf"]  # no other session key can use it


TOO_FAR_MS = (time.time() + MAX_CLOCK_DIFFERENCE_SECONDS + 86_400) * 1000


@pytest.mark.parametrize("time_ms", [None, "soon", -1, 1 << 60, True, pytest.param(TOO_FAR_MS, id="too-far")])
async def test_nothing_is_signed_for_a_time_that_is_too_far_away_or_none(controller: Controller, time_ms: object) -> None:
    time_ms = round(time_ms) if isinstance(time_ms, float) else time_ms
    controller.answers(401, {"code": "assertion-stale", "message": "off", "hint": "set it", "time_ms": time_ms})
    error = await told(controller)
    assert (error.code, error.hint) == ("assertion-stale", "set it")
    assert len(controller.asked) == 1


async def test_a_controller_that_refuses_every_time_is_asked_twice(controller: Controller) -> None:
    controller.answers(401, {"code": "assertion-stale", "message": "off", "hint": "", "time_ms": round(time.time() * 1000)})
    assert (await told(controller)).code == "assertion-stale"
    assert len(controller.asked) == 2


async def test_a_login(controller: Controller) -> None:
    controller.answers(200, SESSION)
    session = await log_in(controller.key_file, controller.context)
    assert (session.id, session.network, session.expires_at_ms) == ("s" * 22, "acme", 2_000_000)
    assert "sesame" not in repr(session)
    ((path, body),) = controller.asked
    assert path == controller.key_file.login_path
    assert body["grant_type"] == assertion.GRANT_TYPE
    claims = signing.verify_signature(body["assertion"], PRIVATE_KEY.public_key(), assertion.LOGIN_TYP)
    # the assertion is for this URL and this session's key only
    assert claims["aud"] == controller.key_file.login_url
    assert signing.confirmation(claims) == signing.thumbprint(session.key.public_key())


async def test_each_login_has_a_key_and_an_assertion_of_its_own(controller: Controller) -> None:
    controller.answers(200, SESSION)
    one = await log_in(controller.key_file, controller.context)
    two = await log_in(controller.key_file, controller.context)
    assert signing.thumbprint(one.key.public_key()) != signing.thumbprint(two.key.public_key())
    jtis = {
        signing.verify_signature(body["assertion"], PRIVATE_KEY.public_key(), assertion.LOGIN_TYP)["jti"]
        for _, body in controller.asked
    }
    assert len(jtis) == 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
async def test_a_refused_login(controller: Controller, kind: type[AuthenticationFailed]) -> None:
    controller.answers(401, {"code": kind.code, "message": "no", "hint": "ask an admin"})
    error = await told(controller)
    assert type(error) is kind
    assert (error.message, error.hint) == ("no", "ask an admin")


async def test_a_401_is_a_refusal_whatever_its_code_word(controller: Controller) -> None:
    controller.answers(401, {"code": "something-new", "message": "no"})
    assert type(await told(controller)) is errors.ServiceKeyInvalid


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "store-overloaded"), (503, "store-closed"), (500, "internal"), (400, "store-overloaded"), (400, "invalid-input")],
)
async def test_a_controller_that_cannot_serve_is_no_key_that_is_refused(controller: Controller, status: int, code: str) -> None:
    controller.answers(status, {"code": code, "message": "too much to do", "retry_after": 1})
    error = await told(controller)
    assert type(error) is ControllerUnreachable
    assert (error.message, error.retry_after) == ("too much to do", 1.0)


async def test_a_throttled_login(controller: Controller) -> None:
    controller.answers(429, {"code": "throttled", "message": "slowly", "retry_after": 3})
    error = await told(controller)
    assert isinstance(error, Throttled)
    assert error.retry_after == 3.0


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"Internal Server Error"),
        (404, b"<html>"),
        (401, {}),
        (401, {"code": 7}),
        (502, []),
        (200, {}),
        (200, []),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (200, {**SESSION, "expires_at_ms": "soon"}),
        (200, {**SESSION, "expires_at_ms": None}),
    ],
)
async def test_an_answer_that_is_not_a_controllers(controller: Controller, status: int, body: object) -> None:
    controller.answers(status, body)
    assert isinstance(await told(controller), ControllerUnreachable)


async def test_a_redirect_is_not_followed(controller: Controller) -> None:
    controller.answers(307, SESSION, Location=f"https://{controller.key_file.network}/elsewhere")
    assert isinstance(await told(controller), ControllerUnreachable)
    assert len(controller.asked) == 1


async def test_a_controller_that_does_not_prove_who_it_is_gets_no_assertion(controller: Controller) -> None:
    other = controller_context(trustme.CA().cert_pem.bytes().decode())
    with pytest.raises(ControllerUnreachable, match="prove"):
        await log_in(controller.key_file, other)
    with pytest.raises(ControllerUnreachable, match="prove"):
        await log_in(controller.key_file, controller_context(None))
    assert controller.asked == []


async def test_logging_out_proves_the_session_with_an_assertion_of_its_own_kind(controller: Controller) -> None:
    controller.answers(200, SESSION)
    session = await log_in(controller.key_file, controller.context)
    await log_out(controller.key_file, session, controller.context)
    path, body = controller.asked[-1]
    assert path == LOGOUT_PATH
    claims = signing.verify_signature(body["assertion"], PRIVATE_KEY.public_key(), assertion.END_TYP)
    assert signing.confirmation(claims) == signing.thumbprint(session.key.public_key())
