"""Held SYNs: let through when the target has accepted, refused, or left to time out. The kernel's queue is played by the test."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from klinket.client.capture import connects as module
from klinket.client.capture import nfqueue
from klinket.client.capture.connects import HeldConnects
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.namespace import rules
from klinket.client.capture.nfqueue import Verdict
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.errors import CaptureImpossible, FlowRefused
from klinket.domain.flow import FlowFailure
from tests.eventually import eventually
from tests.unit.client.conftest import Echo, FakeClient
from tests.unit.client.test_client_nfqueue import acknowledgement, held, split
from tests.unit.client.test_client_packets import tcp_packet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
#: Where the command believes to connect to: the listener here, as TPROXY has it.
GRANTED = "127.77.7.1"


class Netlink(socket.socket):
    """One end of a pair with netlink's way of naming its peer."""

    def sendto(self, data: bytes, address: object) -> int:  # type: ignore[override]
        assert address == (0, 0), "messages go to the kernel"
        return self.send(data)


@dataclass
class Kernel:
    """The other end of the queue."""

    sock: socket.socket
    connects: HeldConnects
    listener: tuple[str, int]
    next_id: int = 1
    said: list[tuple[int, Verdict, int]] = field(default_factory=list)

    def hold(self, packet: bytes) -> int:
        """Put a packet into the queue; returns its id."""
        id = self.next_id
        self.next_id += 1
        self.sock.send(held(id, packet[: nfqueue.COPY_BYTES]))
        return id

    def syn(self, source: tuple[str, int], number: int = 1, to: tuple[str, int] | None = None) -> int:
        return self.hold(tcp_packet(source, to or self.listener, number, 0))

    async def verdict(self) -> tuple[int, Verdict, int]:
        """Return the next word on a packet: (id, verdict, mark)."""
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 65_536), 5)
        _, _, queue, attributes = split(data)
        assert queue == rules.QUEUE
        word, id = struct.unpack(">II", attributes[2])
        return id, Verdict(word), int.from_bytes(attributes.get(3, b""))

    def silent(self) -> bool:
        """Return whether nothing was said on any packet."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False


def netlink_pair() -> tuple[Netlink, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Netlink(fileno=ours.detach()), theirs


@pytest.fixture
async def kernel(client: FakeClient) -> AsyncIterator[Kernel]:
    client.grant(GRANTED)
    queue, theirs = netlink_pair()
    listener = socket.create_server((GRANTED, 0))
    address = listener.getsockname()
    theirs.send(acknowledgement(0))
    theirs.send(acknowledgement(0))
    connects = HeldConnects(queue, [listener], Doorway(client, SyntheticAddresses(), lambda _: None))
    connects.start()
    theirs.setblocking(False)
    for _ in range(2):  # bind and configure
        theirs.recv(65_536)
    yield Kernel(theirs, connects, address)
    await connects.aclose()
    theirs.close()


def program() -> socket.socket:
    """Return a socket of the command with a port, not connected yet."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@pytest.mark.parametrize("request_number", [0, 1])
async def test_a_queue_the_kernel_refuses_makes_capture_impossible(client: FakeClient, request_number: int) -> None:
    queue, theirs = netlink_pair()
    for number in range(2):
        theirs.send(acknowledgement(1 if number == request_number else 0))
    with socket.create_server((GRANTED, 0)) as listener, queue, theirs:
        connects = HeldConnects(queue, [listener], Doorway(client, SyntheticAddresses(), lambda _: None))
        with pytest.raises(CaptureImpossible, match="errno 1"):
            connects.start()


async def test_a_syn_is_let_through_when_the_target_has_accepted_and_then_carried(kernel: Kernel, client: FakeClient) -> None:
    with program() as sock:
        id = kernel.syn(sock.getsockname())
        assert await kernel.verdict() == (id, Verdict.ACCEPT, rules.MARK_CONNECT)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, kernel.listener)
        await loop.sock_sendall(sock, b"ping")
        assert await asyncio.wait_for(loop.sock_recv(sock, 10), 5) == b"ping"
    assert [(one.host, one.port) for one in client.asked] == [kernel.listener]


@pytest.mark.parametrize(
    ("failure", "word", "mark"),
    [
        (FlowFailure.REFUSED, Verdict.ACCEPT, rules.MARK_REFUSE),
        (FlowFailure.NOT_GRANTED, Verdict.ACCEPT, rules.MARK_FORBIDDEN),
        (FlowFailure.CUT, Verdict.ACCEPT, rules.MARK_FORBIDDEN),
        (FlowFailure.THROTTLED, Verdict.ACCEPT, rules.MARK_REFUSE),
        (FlowFailure.UNREACHABLE, Verdict.ACCEPT, rules.MARK_UNREACHABLE),
        (FlowFailure.NAME_NOT_FOUND, Verdict.ACCEPT, rules.MARK_UNREACHABLE),
        (FlowFailure.NO_CONNECTOR, Verdict.ACCEPT, rules.MARK_UNREACHABLE),
        (FlowFailure.TIMED_OUT, Verdict.DROP, 0),
    ],
)
async def test_each_failure_has_its_answer(
    kernel: Kernel, client: FakeClient, failure: FlowFailure, word: Verdict, mark: int
) -> None:
    client.refuse(GRANTED, failure)
    id = kernel.syn(("10.0.0.9", 40_000))
    assert await kernel.verdict() == (id, word, mark)


async def test_a_repetition_of_a_held_syn_is_dropped_and_opens_nothing(kernel: Kernel, client: FakeClient) -> None:
    release = asyncio.Event()
    original = client.open_stream

    async def slow(destination: object) -> Echo:
        await release.wait()
        return await original(destination)  # type: ignore[arg-type]

    client.open_stream = slow  # type: ignore[method-assign]
    first = kernel.syn(("10.0.0.9", 40_000))
    second = kernel.syn(("10.0.0.9", 40_000))
    assert await kernel.verdict() == (second, Verdict.DROP, 0)
    release.set()
    assert await kernel.verdict() == (first, Verdict.ACCEPT, rules.MARK_CONNECT)
    third = kernel.syn(("10.0.0.9", 40_000))
    assert await kernel.verdict() == (third, Verdict.ACCEPT, rules.MARK_CONNECT)  # the one let through got lost
    assert len(client.flows) == 1


async def test_repetitions_of_an_unanswered_syn_are_dropped_without_dialling_again(kernel: Kernel, client: FakeClient) -> None:
    client.refuse(GRANTED, FlowFailure.TIMED_OUT)
    ids = []
    for _ in range(3):
        ids.append(kernel.syn(("10.0.0.9", 40_000)))
        assert await kernel.verdict() == (ids[-1], Verdict.DROP, 0)
    assert len(client.asked) == 1
    other = kernel.syn(("10.0.0.9", 40_000), number=2)  # a new connect from the same port
    assert await kernel.verdict() == (other, Verdict.DROP, 0)
    assert len(client.asked) == 2


async def test_a_connect_that_nothing_was_said_of_is_decided_anew_with_its_repetition(
    kernel: Kernel, client: FakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    original = client.open_stream

    async def broken(destination: object) -> Echo:
        raise ConnectionResetError("nobody has thought of it")

    client.open_stream = broken  # type: ignore[method-assign]
    first = kernel.syn(("10.0.0.9", 40_000))
    assert await kernel.verdict() == (first, Verdict.DROP, 0)
    client.open_stream = original  # type: ignore[method-assign]
    again = kernel.syn(("10.0.0.9", 40_000))
    assert await kernel.verdict() == (again, Verdict.ACCEPT, rules.MARK_CONNECT)
    assert "nobody has thought of it" in caplog.text, "and it is in the log"


async def test_a_flow_whose_command_gave_up_is_aborted(
    kernel: Kernel, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.05)
    kernel.syn(("10.0.0.9", 40_000))
    assert (await kernel.verdict())[1] is Verdict.ACCEPT
    await eventually(lambda: client.flows[0].aborted)


async def test_a_connection_without_a_held_syn_is_reset(kernel: Kernel, client: FakeClient) -> None:
    with program() as sock:
        loop = asyncio.get_running_loop()
        with pytest.raises(ConnectionResetError):
            await loop.sock_connect(sock, kernel.listener)
            await asyncio.wait_for(loop.sock_recv(sock, 1), 5)
    assert client.asked == []


async def test_a_packet_that_is_no_syn_is_dropped(kernel: Kernel, client: FakeClient) -> None:
    id = kernel.hold(b"\x60" + bytes(60))
    assert await kernel.verdict() == (id, Verdict.DROP, 0)
    kernel.sock.send(struct.pack("=IHHII", 15, 0, 0, 0, 0))  # no message at all: passed over
    id = kernel.syn(("10.0.0.9", 40_001))
    assert await kernel.verdict() == (id, Verdict.ACCEPT, rules.MARK_CONNECT)


async def test_more_connects_than_the_queue_holds_are_dropped_not_queued(
    kernel: Kernel, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nfqueue, "MAX_HELD", 2)
    client.refuse(GRANTED, FlowFailure.TIMED_OUT)  # each is kept for a while
    for port in (1, 2, 3):
        kernel.syn(("10.0.0.9", port))
        assert (await kernel.verdict())[1] is Verdict.DROP
    assert kernel.connects.dropped == 1
    assert len(client.asked) == 2


async def test_closing_drops_what_is_held_and_aborts_what_waits(client: FakeClient) -> None:
    client.grant(GRANTED)
    queue, theirs = netlink_pair()
    for _ in range(2):
        theirs.send(acknowledgement(0))
    listener = socket.create_server((GRANTED, 0))
    address = listener.getsockname()
    connects = HeldConnects(queue, [listener], Doorway(client, SyntheticAddresses(), lambda _: None))
    connects.start()
    theirs.setblocking(False)
    kernel = Kernel(theirs, connects, address)
    for _ in range(2):
        theirs.recv(65_536)
    kernel.syn(("10.0.0.9", 40_000))
    await kernel.verdict()

    async def never(_: object) -> Echo:
        await asyncio.get_running_loop().create_future()
        raise FlowRefused(FlowFailure.INTERNAL, "")

    client.open_stream = never  # type: ignore[method-assign]
    held_one = kernel.syn(("10.0.0.9", 40_001))
    await eventually(lambda: len(connects._attempts) == 2)
    await connects.aclose()
    assert client.flows[0].aborted
    assert await kernel.verdict() == (held_one, Verdict.DROP, 0)
    theirs.close()
