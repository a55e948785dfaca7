"""The controller's listener under connections that say nothing, little, or too slowly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from klinket.controller import request, seats, web
from klinket.domain.errors import InvalidInput
from klinket.net.channel import controller_context
from klinket.net.sockets import HostPort
from klinket.wire.key_file import LOGIN_PATH
from tests.eventually import eventually
from tests.unit.controller.running import Running

HEAD = f"POST {LOGIN_PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()


class Peer:
    """A TLS connection to the controller from one of this machine's loopback addresses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Return what comes until the controller closes."""
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                return await self.reader.read()
        return b""

    async def get(self, path: str) -> bytes:
        await self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return (await self.rest()).partition(b"\r\n")[0]


@contextlib.asynccontextmanager
async def dialled(live: Running, source: str = "127.0.0.1", first: bytes = b"") -> AsyncIterator[Peer]:
    context = controller_context(live.authority)
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", live.config.listen.port, ssl=context, server_hostname="127.0.0.1", local_addr=(source, 0)
        )
    peer = Peer(reader, writer)
    try:
        if first:
            await peer.send(first)
        yield peer
    finally:
        writer.close()


@pytest.fixture
async def small(controller: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A controller with room for eight unproven connections of a source."""
    monkeypatch.setattr(seats, "MAX_UNPROVEN_PER_SOURCE", 8)
    async with controller.listening():
        yield controller


async def test_slow_bodies_of_one_address_keep_nobody_out(small: Running) -> None:
    async with contextlib.AsyncExitStack() as held:
        for _ in range(20):
            await held.enter_async_context(dialled(small, first=HEAD + b"{"))
        assert small.seats.unproven <= 8
        async with dialled(small, "127.0.0.2") as other:
            assert await other.get("/readyz") == b"HTTP/1.1 200 OK"
        async with dialled(small) as neighbour:  # a request that comes whole is not what displaces or is displaced
            assert await neighbour.get("/readyz") == b"HTTP/1.1 200 OK"


async def test_connections_without_a_byte_of_tls_are_displaced_as_well(small: Running) -> None:
    silent = [socket.create_connection(("127.0.0.1", small.config.listen.port)) for _ in range(20)]
    try:
        async with dialled(small) as peer:
            assert await peer.get("/readyz") == b"HTTP/1.1 200 OK"
        await eventually(lambda: small.seats.unproven <= 8)
    finally:
        for one in silent:
            one.close()
    await eventually(lambda: len(small.seats) == 0)


@pytest.mark.parametrize(
    "first", [b"", b"GET /readyz HTTP/1.1\r\nHo", HEAD + b"{"], ids=["nothing", "half a head", "half a body"]
)
async def test_who_proves_nothing_in_time_is_closed(live: Running, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    monkeypatch.setattr(seats, "UNPROVEN_SECONDS", 0.5)
    async with dialled(live, first=first) as peer:
        await peer.rest()
    await eventually(lambda: len(live.seats) == 0)


@pytest.mark.parametrize(
    "part",
    [b"GET /" + b"a" * 70_000, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000, b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 12_000],
    ids=["line", "header", "headers"],
)
async def test_a_head_without_end_ends_the_connection_at_its_bound(live: Running, part: bytes) -> None:
    async with dialled(live) as peer:
        begun = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError):
            await peer.send(part)
        assert await peer.rest() == b""
        assert asyncio.get_running_loop().time() - begun < web.HANDSHAKE_SECONDS / 2  # and not at its deadline
    await eventually(lambda: len(live.seats) == 0)


async def test_trailers_without_end_end_the_connection_at_their_bound(live: Running) -> None:
    head = f"POST {LOGIN_PATH} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n0\r\n".encode()
    async with dialled(live, first=head) as peer:
        with contextlib.suppress(OSError):
            await peer.send(b"X: " + b"a" * 70_000)
        await peer.rest()
    await eventually(lambda: len(live.seats) == 0)


async def test_a_body_in_many_pieces_is_no_head(live: Running) -> None:
    head = f"POST {LOGIN_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n".encode()
    async with dialled(live, first=head) as peer:
        for _ in range(20):
            await peer.send(b"x" * 10_000)
        assert (await peer.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_body_that_comes_too_slowly_is_not_waited_for(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "BODY_SECONDS", 0.2)
    async with dialled(live, first=HEAD + b"{") as peer:
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")  # to its end: the connection is closed
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["code"] == "body-too-slow"


async def test_a_connection_that_ends_within_a_body_is_no_error_of_the_controller(
    live: Running, caplog: pytest.LogCaptureFixture
) -> None:
    token = live.tokens["read",]
    known = f"POST /api/graphql/ HTTP/1.1\r\nHost: x\r\nX-API-KEY: {token}\r\nContent-Length: 1000\r\n\r\n".encode()
    for first in (HEAD + b"{", known + b"{"):
        async with dialled(live, first=first):
            await asyncio.sleep(0.3)  # the request is being read when its connection ends
    await eventually(lambda: len(live.seats) == 0)
    assert not [record for record in caplog.records if record.exc_info]


async def test_the_admin_api_says_in_its_own_shape_that_a_body_came_too_slowly(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request, "BODY_SECONDS", 0.2)
    token = live.tokens["read",]
    asked = f"POST /api/graphql/ HTTP/1.1\r\nHost: x\r\nX-API-KEY: {token}\r\nContent-Length: 1000\r\n\r\n{{"
    async with dialled(live, first=asked.encode()) as peer:
        head, _, body = (await peer.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    (error,) = json.loads(body)["errors"]
    assert error["extensions"]["code"] == "body-too-slow"


async def test_a_token_proves_a_connection_for_one_request(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"query": "{ __typename }"}'
    token = live.tokens["read",]
    asked = f"POST /api/graphql/ HTTP/1.1\r\nHost: x\r\nX-API-KEY: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    monkeypatch.setattr(seats, "UNPROVEN_SECONDS", 1.5)
    async with dialled(live, first=asked.encode() + body) as peer:
        for _ in range(3):  # with each request its time begins again
            async with asyncio.timeout(10):
                await peer.reader.readuntil(b"Query")
            assert (len(live.seats), live.seats.unproven) == (1, 1)
            await peer.send(asked.encode() + body)
        await peer.reader.readuntil(b"Query")
        await peer.send(b"P")  # the head of a request that never comes, which ends the web server's own wait
        await peer.rest()
    await eventually(lambda: len(live.seats) == 0)
    async with dialled(live, first=asked.replace(token, "none").encode() + body) as peer:
        async with asyncio.timeout(10):
            assert b" 401 " in await peer.reader.readline()
        assert live.seats.unproven == 1


async def test_a_channel_is_proven_by_its_attach_and_its_seat_is_free_after_it(live: Running) -> None:
    _, key_file = await live.add_key(await live.add_account())
    session = await live.log_in(key_file)
    async with live.channel() as channel:
        assert live.seats.unproven == 1
        await channel.attach(session.token, session.key)
        await eventually(lambda: live.seats.unproven == 0)
        assert len(live.seats) == 1
    await eventually(lambda: len(live.seats) == 0)


async def test_a_large_message_before_the_attach_ends_the_channel(live: Running) -> None:
    async with live.channel() as channel:
        await channel.connection.send("x" * (web.MAX_UNPROVEN_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(channel.connection.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_an_address_in_use_is_told_with_a_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput) as told:
            web.bind(HostPort("127.0.0.1", port))
    assert told.value.field == "listen"
    assert f"127.0.0.1:{port}" in told.value.message
    assert "choose another --listen" in told.value.hint
