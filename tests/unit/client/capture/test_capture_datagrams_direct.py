"""Datagrams past klinket: what the network says of them ends an association with its word, never with a traceback."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys

import pytest

from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from tests.unit.connector.test_connector_dial import closed_port

if sys.platform != "linux":
    pytest.skip("namespaces are there on Linux only", allow_module_level=True)

from klinket.client.capture.datagrams import _DirectDatagrams
from klinket.client.datagram_inbox import DatagramInbox


def udp(port: int, host: str = "127.0.0.1") -> Destination:
    return Destination(host, port, TransportProtocol.UDP)


def started(flow: _DirectDatagrams) -> DatagramInbox:
    inbox = DatagramInbox()
    flow.start(inbox.put, inbox.end)
    return inbox


async def test_datagrams_go_both_ways_one_by_one() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        flow = await _DirectDatagrams.open(udp(listener.getsockname()[1]))
        inbox = started(flow)
        for content in (b"one", b"", bytes(9000)):
            flow.put(content)
            received, source = listener.recvfrom(65_535)
            assert received == content
            listener.sendto(content, source)
            assert await asyncio.wait_for(inbox.get(), 5) == content
        flow.close()


async def test_a_datagram_too_large_for_the_way_is_lost_and_the_next_one_is_not() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        flow = await _DirectDatagrams.open(udp(listener.getsockname()[1]))
        flow.put(bytes(65_530))  # EMSGSIZE
        flow.put(b"small")
        assert listener.recv(65_535) == b"small"
        flow.close()


async def test_a_closed_port_is_told_as_refused() -> None:
    flow = await _DirectDatagrams.open(udp(closed_port()))
    with pytest.raises(FlowRefused) as caught:
        async with asyncio.timeout(5):
            flow.put(b"ping")
            await started(flow).get()
    assert caught.value.failure is FlowFailure.REFUSED
    flow.close()


async def test_no_way_there_is_told_as_unreachable() -> None:
    with pytest.raises(FlowRefused) as caught:
        await _DirectDatagrams.open(udp(53, "255.255.255.255"))
    assert caught.value.failure is FlowFailure.UNREACHABLE


class Failing:
    """A socket the network has something to say about: no unprivileged test makes a firewall say it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def send(self, _: bytes) -> int:
        raise OSError(self._number, "the network says no")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EINVAL])
async def test_whatever_else_the_network_says_is_unreachable(number: int) -> None:
    flow = _DirectDatagrams(Failing(number))  # type: ignore[arg-type]
    with pytest.raises(FlowRefused) as caught:
        flow.put(b"ping")
    assert caught.value.failure is FlowFailure.UNREACHABLE
