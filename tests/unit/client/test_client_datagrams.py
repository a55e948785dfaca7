"""Captured datagrams on real sockets: an association for each pair of ends, answers from the address that was asked."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from klinket.client.capture import datagrams as module
from klinket.client.capture.answers import Answers
from klinket.client.capture.datagrams import CapturedDatagrams
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.packets import Endpoint
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from tests.eventually import eventually
from tests.unit.client.conftest import FakeClient

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for a raw socket"),
]
GRANTED, OTHER = "127.77.8.1", "127.77.8.2"


class Redirecting(Doorway):
    """Leads what was sent to OTHER to a server of the test: without TPROXY it would come back here."""

    elsewhere: Endpoint = ("", 0)

    def destination(self, address: str, port: int, protocol: TransportProtocol) -> Destination:
        if address == OTHER:
            return Destination(*self.elsewhere, protocol)
        return super().destination(address, port, protocol)


@dataclass
class Capture:
    """Captured datagrams on a port of every loopback address."""

    made: CapturedDatagrams
    port: int
    doorway: Redirecting

    async def program(self, address: str = GRANTED) -> socket.socket:
        """Return a connected socket of the command."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        sock.connect((address, self.port))
        sock.setblocking(False)
        return sock


@pytest.fixture
async def capture(client: FakeClient) -> AsyncIterator[Capture]:
    client.grant(GRANTED)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_IP, module.IP_RECVORIGDSTADDR, 1)
    sock.bind(("0.0.0.0", 0))
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    doorway = Redirecting(client, SyntheticAddresses(), lambda _: None)
    made = CapturedDatagrams(sock, Answers(raw), doorway)
    made.start()
    yield Capture(made, sock.getsockname()[1], doorway)
    await made.aclose()


async def receive(sock: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65_535), 5)


async def test_answers_come_from_the_address_that_was_asked(capture: Capture, client: FakeClient) -> None:
    with await capture.program() as sock:
        for content in (b"one", b"two"):
            sock.send(content)
            assert await receive(sock) == b"echo " + content  # a connected socket takes nothing from elsewhere
    assert [(one.host, one.port, one.protocol) for one in client.asked] == [(GRANTED, capture.port, TransportProtocol.UDP)]


async def test_each_of_the_commands_ports_is_an_association_of_its_own(capture: Capture, client: FakeClient) -> None:
    socks = [await capture.program() for _ in range(3)]
    for number, sock in enumerate(socks):
        sock.send(b"%d" % number)
    for number, sock in enumerate(socks):
        assert await receive(sock) == b"echo %d" % number
        sock.close()
    assert len(client.associations) == 3


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (FlowFailure.NOT_GRANTED, ConnectionRefusedError),
        (FlowFailure.REFUSED, ConnectionRefusedError),
        (FlowFailure.NO_CONNECTOR, OSError),
        (FlowFailure.NAME_NOT_FOUND, OSError),
        (FlowFailure.UNREACHABLE, OSError),
    ],
)
async def test_a_refusal_is_an_icmp_error(
    capture: Capture, client: FakeClient, failure: FlowFailure, error: type[OSError]
) -> None:
    client.refuse(GRANTED, failure)
    with await capture.program() as sock:
        sock.setsockopt(socket.SOL_IP, 11, 1)  # IP_RECVERR: soft errors are told too
        sock.send(b"x")
        with pytest.raises(error) as told:
            await receive(sock)
        assert isinstance(told.value, ConnectionRefusedError) == (error is ConnectionRefusedError)


async def test_silence_of_the_target_stays_silence(capture: Capture, client: FakeClient) -> None:
    client.refuse(GRANTED, FlowFailure.TIMED_OUT)
    with await capture.program() as sock:
        sock.send(b"x")
        await eventually(lambda: bool(client.asked) and not capture.made._associations)
        with pytest.raises(BlockingIOError):
            sock.recv(1)


async def test_an_idle_association_ends(capture: Capture, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    with await capture.program() as sock:
        sock.send(b"x")
        assert await receive(sock) == b"echo x"
        await eventually(lambda: client.associations[0].closed)
        await eventually(lambda: not capture.made._associations)
        sock.send(b"y")  # a new one
        assert await receive(sock) == b"echo y"
    assert len(client.associations) == 2


async def test_more_associations_than_the_limit_are_dropped(
    capture: Capture, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ASSOCIATIONS", 1)
    first, second = await capture.program(), await capture.program()
    with first, second:
        first.send(b"1")
        assert await receive(first) == b"echo 1"
        second.send(b"2")
        await eventually(lambda: capture.made.dropped == 1)
    assert len(client.associations) == 1


async def test_what_nobody_granted_is_sent_from_here(capture: Capture, client: FakeClient) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, await capture.program(OTHER) as sock:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        capture.doorway.elsewhere = server.getsockname()
        sock.send(b"question")
        content, source = await asyncio.wait_for(asyncio.get_running_loop().sock_recvfrom(server, 100), 5)
        assert content == b"question"
        server.sendto(b"answer", source)
        assert await receive(sock) == b"answer"
    assert client.asked == []


async def test_a_closed_port_outside_refuses(capture: Capture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        capture.doorway.elsewhere = probe.getsockname()
    with await capture.program(OTHER) as sock:
        sock.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            await receive(sock)


def test_the_original_destination_is_read_and_nothing_else_is() -> None:
    address = struct.pack("=HH", socket.AF_INET, 0)[:2] + struct.pack(">H", 53) + socket.inet_aton("10.0.0.2") + bytes(8)
    read = module.original_destination
    assert read([(socket.SOL_IP, module.IP_RECVORIGDSTADDR, address)]) == ("10.0.0.2", 53)
    assert read([(socket.SOL_IP, module.IP_RECVORIGDSTADDR, address[:7])]) is None
    assert read([(socket.SOL_SOCKET, module.IP_RECVORIGDSTADDR, address)]) is None
    assert read([]) is None
