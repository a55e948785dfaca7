"""Dialling with real sockets: what the resource said is what is told."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from klinket.connector import dial
from klinket.connector.addresses import own_addresses
from klinket.connector.names import NameLookups
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net.poll import poll
from tests.unit.connector.conftest import resource, tcp


def closed_port() -> int:
    """Return a port of loopback where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def silent_port() -> Iterator[int]:
    """A port of loopback that answers no SYN: its backlog is full."""
    with ExitStack() as open_sockets:
        server = open_sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = int(server.getsockname()[1])
        for _ in range(8):
            filler = open_sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        time.sleep(0.05)
        yield port


async def failure(address: str, destination: Destination, own: tuple[str, ...] = ()) -> FlowRefused:
    """Dial what must not be reached; returns the refusal."""
    with pytest.raises(FlowRefused) as caught:
        (await dial.reach(resource(1, address), destination, own)).close()
    return caught.value


def descriptors() -> int:
    with suppress(RuntimeError):  # no loop runs
        poll()  # holds descriptors of its own, once per loop
    return len(os.listdir("/proc/self/fd"))


async def test_a_resource_that_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = await dial.reach(resource(1, "127.0.0.1"), tcp("127.0.0.1", server.getsockname()[1]), ())
        with sock, server.accept()[0] as accepted:
            assert not sock.getblocking()
            assert sock.getpeername() == accepted.getsockname()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_alias_stands_for_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        aliased = resource(1, "127.0.0.1", alias="db.acme.example")
        sock = await dial.reach(aliased, tcp("db.acme.example", server.getsockname()[1]), ())
        with sock:
            assert sock.getpeername() == server.getsockname()


async def test_a_refused_connection() -> None:
    before = descriptors()
    told = await failure("127.0.0.1", tcp("127.0.0.1", port := closed_port()))
    assert told.failure is FlowFailure.REFUSED
    assert str(port) in told.message
    assert descriptors() == before


async def test_a_resource_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "DIAL_SECONDS", 0.3)
    with silent_port() as port:
        before = descriptors()
        begun = time.monotonic()
        assert (await failure("127.0.0.1", tcp("127.0.0.1", port))).failure is FlowFailure.TIMED_OUT
        assert 0.2 < time.monotonic() - begun < 5
        assert descriptors() == before


async def test_giving_up_while_dialling_leaves_no_socket() -> None:
    with silent_port() as port:
        before = descriptors()
        dialling = asyncio.ensure_future(dial.reach(resource(1, "127.0.0.1"), tcp("127.0.0.1", port), ()))
        await asyncio.sleep(0.1)
        assert not dialling.done()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        assert descriptors() == before


async def test_a_name_that_nobody_knows() -> None:
    told = await failure("nowhere.invalid", tcp("nowhere.invalid", 80))
    assert told.failure is FlowFailure.NAME_NOT_FOUND
    assert "nowhere.invalid" in told.message


async def test_an_address_without_a_way_there() -> None:
    assert (await failure("255.255.255.255", tcp("255.255.255.255", 80))).failure is FlowFailure.UNREACHABLE


@pytest.mark.parametrize("protocol", list(TransportProtocol))
async def test_a_name_that_leads_to_loopback_is_not_dialled(protocol: TransportProtocol) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        told = await failure("localhost", Destination("localhost", server.getsockname()[1], protocol))
        assert told.failure is FlowFailure.ADDRESS_FORBIDDEN
        assert "granted by address" in told.message
        with pytest.raises(TimeoutError):
            server.accept()


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every name lead to these addresses: the resolver of a hostile or mistaken zone."""
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        return [entry for address in addresses for entry in real(address, port, *rest, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "127.0.0.1", "::1", "224.0.0.1", "10.9.8.7"])
async def test_a_name_that_leads_to_a_forbidden_address_is_not_dialled(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving_to(monkeypatch, address)
    told = await failure("db.internal", tcp("db.internal", 80), own=("10.9.8.7",))
    assert told.failure is FlowFailure.ADDRESS_FORBIDDEN


async def test_only_the_addresses_that_may_be_are_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    here = next((address for address in own_addresses() if ":" not in address), None)
    if here is None:
        pytest.skip("this machine has no address but loopback")
    with socket.create_server((here, 0)) as server:
        port = server.getsockname()[1]
        resolving_to(monkeypatch, "127.0.0.1", "169.254.169.254", here)
        sock = await dial.reach(resource(1, "db.internal"), tcp("db.internal", port), ())
        with sock:
            assert sock.getpeername()[0] == here
        # and with this machine's own addresses told, none remains
        assert (await failure("db.internal", tcp("db.internal", port), own=(here,))).failure is FlowFailure.ADDRESS_FORBIDDEN


async def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    here = [address for address in own_addresses() if ":" not in address][:1]
    if not here:
        pytest.skip("this machine has no address but loopback")
    with socket.create_server((here[0], 0)) as server:
        resolving_to(monkeypatch, "2001:db8::1", here[0])
        sock = await dial.reach(resource(1, "db.internal"), tcp("db.internal", server.getsockname()[1]), ())
        with sock:
            assert sock.getpeername()[0] == here[0]


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "DIAL_SECONDS", 2.0)
    monkeypatch.setattr(dial, "is_forbidden", lambda *_: False)  # names lead to loopback here
    with silent_port() as port, socket.create_server(("127.0.0.2", port)) as server:
        resolving_to(monkeypatch, "127.0.0.1", "127.0.0.2")
        sock = await dial.reach(resource(1, "db.internal"), tcp("db.internal", port), ())
        with sock:
            assert sock.getpeername() == server.getsockname()


async def test_udp_sets_the_peer_and_sends_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.1)
        destination = Destination("127.0.0.1", listener.getsockname()[1], TransportProtocol.UDP)
        sock = await dial.reach(resource(1, "127.0.0.1"), destination, ())
        with sock:
            assert sock.type == socket.SOCK_DGRAM
            assert sock.getpeername() == listener.getsockname()
        with pytest.raises(TimeoutError):
            listener.recv(10)


@pytest.mark.parametrize("host", ["127.0.0.1", "169.254.169.254", "10.9.8.7"])
async def test_a_special_address_is_not_dialled_because_of_a_wide_range(host: str) -> None:
    told = await failure("0.0.0.0/0", tcp(host, 80), own=("10.9.8.7",))
    assert told.failure is FlowFailure.ADDRESS_FORBIDDEN


async def test_a_name_no_resolver_answers_for_is_told_as_that_and_not_as_a_silent_resource(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dial, "DIAL_SECONDS", 0.2)
    over = threading.Event()

    def never(host: str) -> list[tuple[int, str]]:
        over.wait(10)
        return []

    try:
        with pytest.raises(FlowRefused, match=r"no resolver of the connector has answered for slow\.internal") as caught:
            await dial.reach(resource(1, "slow.internal"), tcp("slow.internal", 80), (), NameLookups(never))
        assert caught.value.failure is FlowFailure.NAME_NOT_FOUND
    finally:
        over.set()
