"""Many datagrams in one call: each whole, in order, with whence it came and where it was to go."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture.datagrams import IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR, original_destination
from klinket.net.datagram_reads import SLOTS, DatagramReads, read_key

READS = DatagramReads()
linux = pytest.mark.skipif(sys.platform != "linux", reason="recvmmsg(2)")


@pytest.fixture(params=["127.0.0.1", "::1"])
def near(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket whose datagrams say where they were to go."""
    is_v6 = ":" in request.param
    with socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if sys.platform == "linux":
            option = (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR) if is_v6 else (socket.SOL_IP, IP_RECVORIGDSTADDR)
            sock.setsockopt(*option, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((request.param, 0))
        sock.setblocking(False)
        yield sock


def connected(near: socket.socket) -> socket.socket:
    sock = socket.socket(near.family, socket.SOCK_DGRAM)
    sock.connect(near.getsockname())
    return sock


def test_all_that_has_come_is_read_whole_and_in_order(near: socket.socket) -> None:
    contents = [b"", b"x", bytes(range(256)) * 200, *(b"%d" % number for number in range(SLOTS)), bytes(65_507)]
    assert READS.read(near) == 0
    with connected(near) as far:
        for content in contents:
            far.send(content)
    read: list[bytes] = []
    while count := READS.read(near):
        assert count == min(SLOTS, len(contents) - len(read))
        read += [bytes(READS.datagram(number)) for number in range(count)]
    assert read == contents


@linux
def test_a_key_says_whence_it_came_and_where_it_was_to_go(near: socket.socket) -> None:
    with connected(near) as one, connected(near) as two:
        for sock in (one, two, one):
            sock.send(b"datagram")
        assert READS.read(near) == 3
        keys = [READS.key(number) for number in range(3)]
        assert keys[0] == keys[2] != keys[1]
        for sock, key in zip((one, two), keys, strict=False):
            source, ancillary = read_key(key)
            assert source == sock.getsockname()[:2]
            assert original_destination(ancillary) == near.getsockname()[:2]


@linux
def test_a_closed_port_is_told_as_the_socket_itself_tells_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        where = gone.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(where)
        sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            READS.read(sock)
        assert READS.read(sock) == 0


@given(st.binary(min_size=96, max_size=96))
def test_no_key_is_more_than_it_can_hold(key: bytes) -> None:
    source, ancillary = read_key(key)
    assert source is None or 0 <= source[1] < 1 << 16
    assert sum(len(data) for _, _, data in ancillary) <= 64
    assert original_destination(ancillary) is None or ancillary
