"""Both proxies on real sockets: honest answers, bytes carried, garbage and foreign addresses refused."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from klinket.client.capture import http_connect
from klinket.client.capture import proxy as proxies
from klinket.client.capture.proxy import Proxy, Speak, speak_http, speak_socks
from klinket.domain.errors import FlowRefused, InvalidInput
from klinket.domain.flow import Destination, FlowFailure
from klinket.net.sockets import HostPort
from tests.eventually import eventually
from tests.unit.client.conftest import Echo, FakeClient

#: Start of one proxy: how it speaks, and whether the rest goes direct.
Start = Callable[..., Awaitable[HostPort]]


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
async def proxy(client: FakeClient, told: list[tuple[str, str]]) -> AsyncIterator[Start]:
    running: list[Proxy] = []

    def tell(destination: Destination, error: FlowRefused) -> None:
        told.append((f"{destination.host}:{destination.port}", error.failure.value))

    async def start(speak: Speak, *, others_direct: bool = False) -> HostPort:
        running.append(Proxy(client, speak, others_direct=others_direct, told=tell))
        return running[-1].listen(HostPort("127.0.0.1", 0))

    yield start
    for one in running:
        await one.aclose()


async def dial(address: HostPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.wait_for(asyncio.open_connection(address.host, address.port), 5)


async def said(address: HostPort, *parts: bytes) -> bytes:
    """Send the parts one after another, then return everything that comes until the end; a reset counts as an end."""
    reader, writer = await dial(address)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 5)
    except ConnectionResetError:
        return b"RESET"
    finally:
        writer.close()


@pytest.mark.parametrize("speak", [speak_http, speak_socks])
async def test_programs_that_say_nothing_keep_nobody_out_and_flows_do_not_count(
    proxy: Start, speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "MAX_UNASKED_PER_SOURCE", 3)
    address = await proxy(speak)
    carried, silent = [], []
    for _ in range(4):
        reader, writer = await dial(address)
        if speak is speak_http:
            writer.write(b"CONNECT echo.internal:5432 HTTP/1.1\r\n\r\nx")
            await asyncio.wait_for(reader.readexactly(len(http_connect.ESTABLISHED) + 1), 5)
        else:
            writer.write(b"\x05\x01\x00" + request(b"echo.internal", 5432) + b"x")
            await asyncio.wait_for(reader.readexactly(13), 5)
        carried.append((reader, writer))
    for _ in range(4):
        silent.append(await dial(address))
        await asyncio.sleep(0.05)
    assert await asyncio.wait_for(silent[0][0].read(), 5) == b""  # the oldest gave way
    for reader, writer in carried:
        writer.write(b"y")
        assert await asyncio.wait_for(reader.readexactly(1), 5) == b"y"
    for _, writer in (*carried, *silent):
        writer.close()


# ---- HTTP


async def test_connect_is_answered_when_the_target_has_answered_and_then_carries(proxy: Start, client: FakeClient) -> None:
    reader, writer = await dial(await proxy(speak_http))
    writer.write(b"CONNECT echo.internal:5432 HTTP/1.1\r\nHost: echo.internal\r\n\r\nearly ")
    assert await asyncio.wait_for(reader.readexactly(len(http_connect.ESTABLISHED)), 5) == http_connect.ESTABLISHED
    writer.write(b"and late")
    assert await asyncio.wait_for(reader.readexactly(14), 5) == b"early and late"
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert [(str(one.host), one.port) for one in client.asked] == [("echo.internal", 5432)]


async def test_a_head_in_pieces_is_one_head(proxy: Start) -> None:
    reader, writer = await dial(await proxy(speak_http))
    for piece in (b"CONN", b"ECT echo.internal:1 HTTP/1.1\r", b"\n\r", b"\n"):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert await asyncio.wait_for(reader.readexactly(12), 5) == b"HTTP/1.1 200"
    writer.close()


async def test_a_plain_request_reaches_the_origin_without_an_answer_of_the_proxy(proxy: Start) -> None:
    reader, writer = await dial(await proxy(speak_http))
    writer.write(b"GET http://echo.internal/x HTTP/1.1\r\nHost: echo.internal\r\n\r\n")
    line = await asyncio.wait_for(reader.readline(), 5)
    assert line == b"GET /x HTTP/1.1\r\n"  # the echo of what the origin was sent
    writer.close()


@pytest.mark.parametrize(
    ("failure", "status"),
    [(FlowFailure.REFUSED, 502), (FlowFailure.TIMED_OUT, 504), (FlowFailure.NOT_GRANTED, 403), (FlowFailure.NO_CONNECTOR, 503)],
)
async def test_http_refusals_are_honest_and_told(
    proxy: Start, client: FakeClient, told: list[tuple[str, str]], failure: FlowFailure, status: int
) -> None:
    client.refuse("echo.internal", failure)
    answer = await said(await proxy(speak_http), b"CONNECT echo.internal:22 HTTP/1.1\r\n\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Klinket-Error: {failure.value}\r\n".encode() in answer
    assert told == [("echo.internal:22", failure.value)]


@pytest.mark.parametrize(
    "request_bytes", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n", b"x" * (http_connect.MAX_HEAD_BYTES + 4096)]
)
async def test_what_is_no_http_request_is_answered_with_400(proxy: Start, client: FakeClient, request_bytes: bytes) -> None:
    answer = await said(await proxy(speak_http), request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ") or answer == b"RESET"
    assert client.asked == []


# ---- SOCKS5


def request(host: bytes, port: int, command: int = 1) -> bytes:
    return b"\x05" + bytes([command, 0, 3, len(host)]) + host + struct.pack(">H", port)


async def test_socks_connect_carries(proxy: Start) -> None:
    reader, writer = await dial(await proxy(speak_socks))
    writer.write(b"\x05\x02\x01\x00" + request(b"echo.internal", 5432))
    assert await asyncio.wait_for(reader.readexactly(12), 5) == b"\x05\x00" + b"\x05\x00\x00\x01" + bytes(6)
    writer.write(b"ping")
    assert await asyncio.wait_for(reader.readexactly(4), 5) == b"ping"
    writer.close()


@pytest.mark.parametrize(
    ("failure", "reply"),
    [(FlowFailure.REFUSED, 5), (FlowFailure.TIMED_OUT, 6), (FlowFailure.NOT_GRANTED, 2), (FlowFailure.NAME_NOT_FOUND, 4)],
)
async def test_socks_refusals_are_honest_and_told(
    proxy: Start, client: FakeClient, told: list[tuple[str, str]], failure: FlowFailure, reply: int
) -> None:
    client.refuse("echo.internal", failure)
    answer = await said(await proxy(speak_socks), b"\x05\x01\x00", request(b"echo.internal", 22))
    assert answer[:4] == bytes([5, 0, 5, reply])
    assert told == [("echo.internal:22", failure.value)]


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([b"\x05\x01\x02"], b"\x05\xff"),
        ([b"\x04\x01\x00\x50\x0a\x00\x00\x05\x00"], b""),
        ([b"\x05\x01\x00", b"\x04\x01\x00\x01\x0a\x00\x00\x05\x00\x50"], b"\x05\x00"),
        ([b"\x05\x01\x00", request(b"echo.internal", 80, command=2)], b"\x05\x00\x05\x07"),
        ([b"\x05\x01\x00", b"\x05\x01\x00\x02\x01\x02"], b"\x05\x00\x05\x08"),
        ([b"\x05\x01\x00", request(b"echo.internal", 0)], b"\x05\x00\x05\x08"),
    ],
    ids=["demands a password", "SOCKS4", "another version later", "BIND", "no address type", "port 0"],
)
async def test_other_socks_requests_are_refused(proxy: Start, client: FakeClient, parts: list[bytes], answer: bytes) -> None:
    got = await said(await proxy(speak_socks), *parts)
    assert got[:4] == answer or got == b"RESET"
    assert client.asked == []


# ---- both


async def test_a_reset_of_the_target_is_a_reset_for_the_program(proxy: Start, client: FakeClient) -> None:
    client.resetting.add("echo.internal")
    reader, writer = await dial(await proxy(speak_http))
    writer.write(b"CONNECT echo.internal:80 HTTP/1.1\r\n\r\n")
    await asyncio.wait_for(reader.readexactly(len(http_connect.ESTABLISHED)), 5)
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def test_nobody_waits_for_a_flow_that_is_carried_and_the_end_of_the_proxy_gives_it_up(client: FakeClient) -> None:
    made = Proxy(client, speak_http)
    reader, writer = await dial(made.listen(HostPort("127.0.0.1", 0)))
    writer.write(b"CONNECT echo.internal:80 HTTP/1.1\r\n\r\nearly")
    await asyncio.wait_for(reader.readexactly(len(http_connect.ESTABLISHED) + 5), 5)
    await eventually(lambda: len(made._tasks) == 1)  # it accepts
    (flow,) = made._carried
    await made.aclose()
    assert isinstance(flow, Echo)
    assert flow.aborted
    await eventually(lambda: not made._carried)
    writer.close()


async def test_what_is_not_granted_goes_direct_only_where_that_is_asked_for(proxy: Start, client: FakeClient) -> None:
    async def hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"direct")
        writer.close()

    server = await asyncio.start_server(hello, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        line = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode()
        assert (await said(await proxy(speak_http, others_direct=True), line)).endswith(b"\r\n\r\ndirect")
        assert (await said(await proxy(speak_http), line)).startswith(b"HTTP/1.1 403 ")


async def test_what_is_granted_never_goes_direct_whatever_fails(proxy: Start, client: FakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client.grant("127.0.0.1")
        client.refuse("127.0.0.1", FlowFailure.NO_CONNECTOR)
        line = f"CONNECT 127.0.0.1:{server.getsockname()[1]} HTTP/1.1\r\n\r\n".encode()
        assert (await said(await proxy(speak_http, others_direct=True), line)).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.com"])
def test_a_proxy_listens_on_loopback_only(client: FakeClient, host: str) -> None:
    with pytest.raises(InvalidInput, match="loopback only"):
        Proxy(client, speak_http).listen(HostPort(host, 0))


async def test_random_bytes_open_nothing(proxy: Start, client: FakeClient) -> None:
    addresses = [await proxy(speak) for speak in (speak_http, speak_socks)]
    for address in addresses:
        for _ in range(20):
            _, writer = await dial(address)
            writer.write(os.urandom(64))
            writer.write_eof()
            writer.close()
    assert client.asked == []


# ---- with a token

TOKEN = "0123456789abcdef0123"


@pytest.fixture
async def guarded(client: FakeClient) -> AsyncIterator[Callable[..., HostPort]]:
    """Starts proxies that want TOKEN, on every address of this machine."""
    running: list[Proxy] = []

    def start(speak: Speak) -> HostPort:
        running.append(Proxy(client, speak, token=TOKEN))
        return HostPort("127.0.0.1", running[-1].listen(HostPort("0.0.0.0", 0)).port)

    yield start
    for one in running:
        await one.aclose()


def connect_with(authorization: bytes) -> bytes:
    return b"CONNECT echo.internal:1 HTTP/1.1\r\n" + authorization + b"\r\n"


@pytest.mark.parametrize(
    "authorization",
    [
        b"Proxy-Authorization: Basic " + b64encode(b"klinket:" + TOKEN.encode()) + b"\r\n",
        b"proxy-authorization:basic " + b64encode(b":" + TOKEN.encode()) + b"\r\n",
        b"Proxy-Authorization: Bearer " + TOKEN.encode() + b"\r\n",
    ],
)
async def test_an_http_program_that_shows_the_token_is_served(guarded: Callable[..., HostPort], authorization: bytes) -> None:
    reader, writer = await dial(guarded(speak_http))
    writer.write(connect_with(authorization))
    assert await asyncio.wait_for(reader.readexactly(len(http_connect.ESTABLISHED)), 5) == http_connect.ESTABLISHED
    writer.close()


@pytest.mark.parametrize(
    "authorization",
    [
        b"",
        b"Proxy-Authorization: Basic " + b64encode(b"klinket:" + TOKEN.encode() + b"x") + b"\r\n",
        b"Proxy-Authorization: Basic " + b64encode(TOKEN.encode() + b":") + b"\r\n",
        b"Proxy-Authorization: Basic %%%\r\n",
        b"Proxy-Authorization: Bearer \r\n",
        b"Authorization: Bearer " + TOKEN.encode() + b"\r\n",
        b"X-Proxy-Authorization: Bearer " + TOKEN.encode() + b"\r\n",
    ],
)
async def test_an_http_program_that_does_not_is_told_so_and_reaches_nothing(
    guarded: Callable[..., HostPort], client: FakeClient, authorization: bytes
) -> None:
    answer = await said(guarded(speak_http), connect_with(authorization))
    assert answer.startswith(b"HTTP/1.1 407 ")
    assert b'Proxy-Authenticate: Basic realm="klinket"' in answer
    assert client.asked == []


async def test_a_socks_program_that_shows_the_token_is_served(guarded: Callable[..., HostPort]) -> None:
    password = b"\x01\x04user" + bytes([len(TOKEN)]) + TOKEN.encode()
    request = b"\x05\x01\x00\x03\x0decho.internal\x00\x01"
    reader, writer = await dial(guarded(speak_socks))
    writer.write(b"\x05\x02\x00\x02" + password + request + b"ping")
    assert (
        await asyncio.wait_for(reader.readexactly(2 + 2 + 10 + 4), 5) == b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6) + b"ping"
    )
    writer.close()


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"\x05\x01\x00", b"\x05\xff"),
        (b"\x05\x01\x02" + b"\x01\x01u\x14" + b"x" * 20, b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02" + b"\x01\x01u\x00", b"\x05\x02\x01\x01"),
        (b"\x05\x01\x02" + b"\x02\x01", b"\x05\x02"),
    ],
)
async def test_a_socks_program_that_does_not_reaches_nothing(
    guarded: Callable[..., HostPort], client: FakeClient, greeting: bytes, answer: bytes
) -> None:
    assert await said(guarded(speak_socks), greeting) == answer
    assert client.asked == []
