"""Sockets of klinket's own traffic carry a mark while the machine is captured, and connect as any other."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from klinket.net import sockets

MARK = 0x6B6C_0010


@pytest.fixture
def marked() -> Iterator[None]:
    sockets.mark_own(MARK)
    yield
    sockets.mark_own(0)


def mark_of(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


@pytest.mark.skipif(sys.platform != "linux", reason="marks are Linux's")
def test_without_a_capture_nothing_is_marked() -> None:
    with sockets.own_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        assert mark_of(sock) == 0
        assert not os.get_inheritable(sock.fileno())


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for a mark")
async def test_with_a_capture_every_way_to_connect_is_marked(marked: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address: tuple[str, int] = server.getsockname()
        with sockets.create_connection(address, 5) as one, await sockets.connect(sockets.HostPort(*address), 5) as two:
            assert mark_of(one) == mark_of(two) == MARK
        with sockets.own_socket(socket.AF_INET, socket.SOCK_DGRAM) as three:
            assert mark_of(three) == MARK


def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", sock.getsockname()) for sock in (closed, server)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with sockets.create_connection(("any.example", 1), 5) as sock:
            assert sock.getpeername() == server.getsockname()
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:1])
        with pytest.raises(ConnectionRefusedError):
            sockets.create_connection(("any.example", 1), 5)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
        with pytest.raises(OSError, match="no address"):
            sockets.create_connection(("any.example", 1), 5)
