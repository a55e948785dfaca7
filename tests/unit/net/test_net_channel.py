"""Requests and live channels over real HTTPS: bounded, never redirected, every failure one kind of error."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from klinket.doctor.controller_probe import probe
from klinket.doctor.finding import Outcome
from klinket.domain.errors import ControllerUnreachable, NotTheController
from klinket.net import channel
from klinket.net.channel import controller_context, open_channel
from klinket.net.request import MAX_ANSWER_BYTES, post
from klinket.net.tls import TLS_TOO_OLD
from tests.unit.connector.test_connector_dial import closed_port

AUTHORITY = trustme.CA()
TRUSTED = AUTHORITY.cert_pem.bytes().decode()


def server_context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    return context


# ---- a gateway of an older TLS


@pytest.fixture
def old_gateway() -> Iterator[str]:
    """Yield the URL of a gateway that ends TLS itself and has no 1.3."""
    context = server_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            try:
                taken, _ = listener.accept()
                with taken:
                    taken.settimeout(10)
                    context.wrap_socket(taken, server_side=True)
            except OSError:
                pass  # the alert is on its way

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


async def test_a_channel_through_a_gateway_without_tls_1_3_says_so(old_gateway: str) -> None:
    with pytest.raises(ControllerUnreachable) as raised:
        async with open_channel(old_gateway, "/", controller_context(TRUSTED), max_bytes=100):
            pass
    assert "TLS 1.3" in raised.value.hint


async def test_a_request_through_a_gateway_without_tls_1_3_says_so(old_gateway: str) -> None:
    with pytest.raises(NotTheController) as raised:
        await post(old_gateway, "/", {}, controller_context(TRUSTED))
    assert "TLS 1.3" in raised.value.hint


def test_a_doctor_in_front_of_a_gateway_without_tls_1_3_says_so(old_gateway: str) -> None:
    *_, last = probe(old_gateway, controller_context(TRUSTED), 10)
    assert (last.outcome, last.next) == (Outcome.FAIL, TLS_TOO_OLD)


# ---- live channels


@asynccontextmanager
async def channel_to(handle: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve WebSockets with TLS; yield the controller's URL."""
    async with serve(handle, "127.0.0.1", 0, ssl=server_context(), close_timeout=1) as server:
        yield f"https://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def test_messages_go_both_ways() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with channel_to(echo) as url:
        async with open_channel(url, "/channel", controller_context(TRUSTED), max_bytes=1000) as connection:
            for text in ("{}", "é" * 100):
                await channel.send(connection, text)
                assert await channel.receive(connection, 5) == text
        with pytest.raises(ControllerUnreachable):
            await channel.send(connection, "after the end")


async def never(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def closes(connection: ServerConnection) -> None:
    await connection.close(1008, "no")


async def aborts(connection: ServerConnection) -> None:
    connection.transport.abort()


async def says_too_much(connection: ServerConnection) -> None:
    await connection.send("x" * 1001)
    await connection.wait_closed()


@pytest.mark.parametrize("handle", [never, closes, aborts, says_too_much], ids=lambda one: one.__name__)
async def test_whatever_ends_a_channel_is_one_kind_of_error(handle: Callable[[ServerConnection], Awaitable[None]]) -> None:
    async with channel_to(handle) as url, asyncio.timeout(10):
        async with open_channel(url, "/channel", controller_context(TRUSTED), max_bytes=1000) as connection:
            with pytest.raises(ControllerUnreachable):
                await channel.receive(connection, 0.3)


async def leaves(connection: ServerConnection) -> None:
    await connection.close(1013, "try again")


@pytest.mark.parametrize(("handle", "is_refusal"), [(closes, True), (leaves, False), (aborts, False), (never, False)])
async def test_a_refusal_is_told_from_other_ends(handle: Callable[[ServerConnection], Awaitable[None]], is_refusal: bool) -> None:
    async with channel_to(handle) as url, asyncio.timeout(10):
        async with open_channel(url, "/channel", controller_context(TRUSTED), max_bytes=1000) as connection:
            with pytest.raises(ControllerUnreachable) as ended:
                await channel.receive(connection, 0.3)
    assert channel.was_refused(ended.value) is is_refusal


@pytest.mark.parametrize(("status", "is_refusal"), [(401, True), (403, True), (404, False), (503, False)])
async def test_a_channel_that_is_refused_before_it_opens_is_a_refusal(status: int, is_refusal: bool) -> None:
    def refuse(connection: ServerConnection, _: Request) -> Response:
        return connection.respond(status, "no\n")

    async with serve(never, "127.0.0.1", 0, ssl=server_context(), process_request=refuse) as server, asyncio.timeout(10):
        url = f"https://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        with pytest.raises(ControllerUnreachable) as refused:
            async with open_channel(url, "/channel", controller_context(TRUSTED), max_bytes=1000):
                pass
    assert channel.was_refused(refused.value) is is_refusal


async def test_a_controller_that_does_not_prove_who_it_is_gets_no_channel() -> None:
    reached: list[ServerConnection] = []

    async def handle(connection: ServerConnection) -> None:
        reached.append(connection)

    async with channel_to(handle) as url:
        for context in (controller_context(trustme.CA().cert_pem.bytes().decode()), controller_context(None)):
            with pytest.raises(ControllerUnreachable, match="not trusted"):
                async with open_channel(url, "/channel", context, max_bytes=1000):
                    pass
    assert reached == []


async def test_nobody_there_is_told_by_host_and_port() -> None:
    port = closed_port()
    with pytest.raises(ControllerUnreachable, match=str(port)):
        async with open_channel(f"https://127.0.0.1:{port}", "/", controller_context(TRUSTED), max_bytes=1000):
            pass


# ---- requests


class Answers(HTTPServer):
    """Answers each POST with `status`, `headers` and `body`."""

    status = 200
    body = b"{}"
    headers: dict[str, str] = {}  # noqa: RUF012
    asked = 0


@pytest.fixture
def server() -> Iterator[Answers]:
    class Handler(BaseHTTPRequestHandler):
        server: Answers

        def do_POST(self) -> None:
            self.server.asked += 1
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(self.server.status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(self.server.body)))
            self.end_headers()
            try:
                self.wfile.write(self.server.body)
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    made = Answers(("127.0.0.1", 0), Handler)
    made.socket = server_context().wrap_socket(made.socket, server_side=True)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def url_of(server: Answers) -> str:
    return f"https://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("body", "parsed"),
    [(b'{"a": 1}', {"a": 1}), (b"[]", {}), (b"", {}), (b"\xff", {}), (b"[" * 100_000, {}), (b"null", {}), (b'"text"', {})],
)
async def test_an_answer_is_a_json_object_or_empty(server: Answers, body: bytes, parsed: dict[str, object]) -> None:
    server.status, server.body = 418, body
    answer = await post(url_of(server), "/", {}, controller_context(TRUSTED))
    assert (answer.status, answer.body) == (418, parsed)
    assert answer.text("a") == "", "a number is no text"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(server: Answers, status: int) -> None:
    server.status, server.headers = status, {"Location": url_of(server) + "/elsewhere"}
    with pytest.raises(ControllerUnreachable, match="redirects"):
        await post(url_of(server), "/", {}, controller_context(TRUSTED))
    assert server.asked == 1


async def test_an_answer_is_bounded(server: Answers) -> None:
    server.body = b'{"a": "' + b"x" * (2 * MAX_ANSWER_BYTES) + b'"}'
    assert (await post(url_of(server), "/", {}, controller_context(TRUSTED))).body == {}


async def test_no_proxy_of_the_environment_is_used(server: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert (await post(url_of(server), "/", {}, controller_context(TRUSTED))).status == 200


async def test_a_request_takes_no_longer_than_it_may() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with asyncio.timeout(10):
            with pytest.raises(ControllerUnreachable):
                await post(f"https://127.0.0.1:{silent.getsockname()[1]}", "/", {}, controller_context(TRUSTED), 0.2)
