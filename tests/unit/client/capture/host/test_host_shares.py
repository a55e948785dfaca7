"""What one source holds of a captured machine's DNS and UDP leaves room for others."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from klinket.client.capture.answers import Answers
from klinket.client.capture.datagrams import CapturedDatagrams
from klinket.client.capture.host import names
from klinket.client.capture.host.names import CapturedNames
from klinket.client.capture.packets import Endpoint

QUERY = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\7example\3com\0\0\1\0\1"
TARGET = ("192.0.2.1", 53)


class NothingOwn:
    def answer(self, message: bytes, *, over_tcp: bool = False) -> bytes | None:
        return None


class Names(CapturedNames):
    """Its queries wait for `go`; `replies` are kept."""

    def __init__(self, sock: socket.socket, raw: socket.socket, listener: socket.socket) -> None:
        super().__init__(sock, raw, listener, NothingOwn(), list)  # type: ignore[arg-type]
        self.replies: list[tuple[bytes, Endpoint]] = []
        self.go = asyncio.Event()

    def _reply(self, answer: bytes, target: Endpoint, source: Endpoint) -> None:
        self.replies.append((answer, source))

    async def _ask_others(self, message: bytes, target: Endpoint) -> bytes:
        await self.go.wait()
        return b"answered"


class Queries:
    """Stands for the DNS socket: what is in `waiting` was sent by that address."""

    def __init__(self) -> None:
        self.pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.waiting: list[Endpoint] = []

    def setblocking(self, _: bool) -> None:
        pass

    def fileno(self) -> int:
        return self.pair[0].fileno()

    def close(self) -> None:
        for one in self.pair:
            one.close()

    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, Endpoint]:
        if not self.waiting:
            raise BlockingIOError
        data = b"\2\0" + TARGET[1].to_bytes(2) + socket.inet_aton(TARGET[0])
        return QUERY, [(socket.SOL_IP, 20, data)], 0, self.waiting.pop(0)


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Names, Queries, int]]:
    queries = Queries()
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(names, "DNS_PORT", listener.getsockname()[1])
    served = Names(queries, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), listener)  # type: ignore[arg-type]
    monkeypatch.setattr(served._loop, "add_reader", lambda *_: None)
    served.start()
    monkeypatch.undo()
    monkeypatch.setattr(names, "DNS_PORT", listener.getsockname()[1])
    yield served, queries, listener.getsockname()[1]
    await served.aclose()


async def test_a_source_with_its_share_of_queries_keeps_no_other_from_asking(
    made: tuple[Names, Queries, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, queries, _ = made
    monkeypatch.setattr(names, "MAX_QUERIES_PER_SOURCE", 2)
    monkeypatch.setattr(names, "DNS_PORT", 53)
    queries.waiting += [("192.0.2.66", port) for port in range(3)] + [("192.0.2.9", 9)]
    served._readable()
    assert [source for _, source in served.replies] == [("192.0.2.66", 2)], "SERVFAIL for the one too many alone"
    served.go.set()
    while served._queries:
        await asyncio.sleep(0.01)
    assert (b"answered", ("192.0.2.9", 9)) in served.replies


async def test_the_connection_that_is_idle_for_longest_gives_way(
    made: tuple[Names, Queries, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, _, port = made
    monkeypatch.setattr(names, "MAX_CONNECTIONS", 2)
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    async with asyncio.timeout(10):
        assert await opened[0][0].read() == b""
        for reader, writer in opened[1:]:
            writer.write(len(QUERY).to_bytes(2) + QUERY)
            assert await reader.readexactly(2), "it is served"
    assert len(served._connections) == 2
    for _, writer in opened:
        writer.close()


class Silent:
    def start(self, *_: object) -> None: ...

    def put(self, _: bytes) -> None: ...

    async def send(self, _: bytes) -> None: ...

    async def receive(self) -> bytes:
        await asyncio.sleep(1000)
        return b""

    def close(self) -> None: ...


class Door:
    def destination(self, *target: object) -> object:
        return target

    def is_klinkets(self, _: object) -> bool:
        return True

    async def open_datagrams(self, _: object) -> Silent:
        return Silent()


async def test_a_source_with_its_share_of_associations_keeps_no_other_from_one() -> None:
    sock, raw = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    served = CapturedDatagrams(sock, Answers(raw), Door(), 10, 4)  # type: ignore[arg-type]
    served.start()
    for port in range(6):
        served._association(("192.0.2.66", port), TARGET, [b"x"])
    served._association(("192.0.2.9", 1), TARGET, [b"x"])
    assert (len(served._associations), served.dropped) == (5, 2)
    await served.aclose()
    assert not served._of_source
