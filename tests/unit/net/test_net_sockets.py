"""Connecting fairly, noticing dead peers, and closing honestly, on real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
import time

import pytest

from klinket.domain.errors import InvalidInput
from klinket.net import sockets
from klinket.net.sockets import FamilyAddress, HostPort
from tests.unit.connector.test_connector_dial import closed_port, descriptors, silent_port
from tests.unit.net.conftest import tcp_pair


def v4(port: int) -> FamilyAddress:
    return socket.AF_INET, ("127.0.0.1", port)


# ---- peers that are gone


@pytest.mark.skipif(sys.platform != "linux", reason="options have other names elsewhere")
def test_a_peer_whose_machine_lost_power_is_noticed_within_a_minute() -> None:
    one, two = tcp_pair()
    with one, two:
        for sock in (one, two):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, probes = (
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + interval * probes <= 60
            # Set, it would also end a flow whose reader is alive and pauses for longer.
            assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


# ---- connecting


async def test_an_address_that_swallows_everything_leaves_time_for_the_others() -> None:
    with silent_port() as silent, socket.create_server(("127.0.0.1", 0)) as server:
        before = descriptors()
        sock = await sockets.connect_first([v4(silent), v4(server.getsockname()[1])], 1.0)
        with sock:
            assert sock.getpeername() == server.getsockname()
        assert descriptors() == before


async def test_a_refusal_uses_up_nobody_elses_time() -> None:
    with silent_port() as silent:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await sockets.connect_first([v4(closed_port()), v4(closed_port()), v4(silent)], 0.5)
        assert time.monotonic() - begun >= 0.4, "the last one has all that is left"


async def test_the_last_address_says_why() -> None:
    with silent_port() as silent:
        with pytest.raises(ConnectionRefusedError):
            await sockets.connect_first([v4(silent), v4(closed_port())], 0.3)


async def test_a_family_this_machine_does_not_speak_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = await sockets.connect_first([(12345, ("127.0.0.1", 1)), v4(server.getsockname()[1])], 5.0)
        sock.close()
    with pytest.raises(OSError):
        await sockets.connect_first([], 1.0)


async def test_connect_looks_the_host_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = await sockets.connect(HostPort("localhost", server.getsockname()[1]), 5.0)
        with sock:
            assert not sock.getblocking()


async def test_giving_up_leaves_no_socket() -> None:
    with silent_port() as silent:
        before = descriptors()
        connecting = asyncio.ensure_future(sockets.connect_first([v4(silent), v4(silent)], 60.0))
        await asyncio.sleep(0.05)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert descriptors() == before


# ---- closing and reading


async def test_a_reset_is_seen_as_one() -> None:
    one, two = tcp_pair()
    one.send(b"never read")
    sockets.reset(two)
    with pytest.raises(ConnectionResetError):
        await asyncio.get_running_loop().sock_recv(one, 1)
    one.close()
    sockets.reset(one)  # closed already: nothing happens


async def test_receive_exactly_takes_no_more_and_accepts_no_less() -> None:
    one, two = tcp_pair()
    with one, two:
        one.send(b"abcdef")
        assert await sockets.receive_exactly(two, 4) == b"abcd"
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            await sockets.receive_exactly(two, 3)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("a.example:1", "a.example", 1), ("[::1]:65535", "::1", 65535), ("127.0.0.1", "127.0.0.1", 9), ("[::1]", "::1", 9)],
)
def test_an_address(text: str, host: str, port: int) -> None:
    parsed = HostPort.parse(text, 9)
    assert (parsed.host, parsed.port) == (host, port)
    assert HostPort.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", ":1", "a", "a:", "a:x", "a:65536", "a:999999", "a:-1", "a:¹"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        HostPort.parse(text)
    assert caught.value.field == "address"


@pytest.mark.skipif(not hasattr(socket, "TCP_WINDOW_CLAMP"), reason="no such option on this system")
@pytest.mark.parametrize(("microseconds", "narrowed"), [(10_000_000, True), (0, False)])
def test_only_a_peer_that_is_near_may_send_no_more_ahead_than_caches_hold(
    monkeypatch: pytest.MonkeyPatch, microseconds: int, narrowed: bool
) -> None:
    monkeypatch.setattr(sockets, "NEAR_MICROSECONDS", microseconds)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as here:
        there, _ = listener.accept()
        with there:
            here.sendall(b"x")
            assert there.recv(1) == b"x"
            sockets.narrow_if_near(there)
            clamp = there.getsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP)
            assert (clamp == sockets.NEAR_WINDOW_BYTES) is narrowed


def test_a_socket_that_is_no_tcp_or_not_connected_is_left_as_it_was() -> None:
    one, two = socket.socketpair()
    with one, two, socket.socket() as alone:
        sockets.narrow_if_near(one)
        sockets.narrow_if_near(alone)
    sockets.narrow_if_near(alone)
