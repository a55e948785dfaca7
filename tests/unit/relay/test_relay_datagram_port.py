"""A relay's UDP port on real sockets: two ends that bind as ends do, and what comes out at the other."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from klinket.net import datagram_socket, relay_binding, segments
from klinket.net.relay_binding import RelayBinding
from klinket.relay import datagram_port
from klinket.relay.core import Paired, RelayCore
from klinket.relay.datagram_port import DatagramPort
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.limits import RelayLimits
from klinket.relay.traffic import Drop
from klinket.wire import relay_datagram
from klinket.wire.datagram_header import OVERHEAD_BYTES
from klinket.wire.relay import Admission, RelayHello
from klinket.wire.signing import KeySet
from tests.eventually import eventually
from tests.unit.relay.conftest import KEY, NETWORK, RELAY, Peer, Relay

TO_CONNECTOR, TO_CLIENT = b"\0to-con", b"\0to-cli"


@dataclass
class Path:
    """In place of a RelayPath: it has been admitted, or is not any more."""

    held: Admission | None

    def admission(self) -> Admission | None:
        return self.held


@dataclass
class Leg:
    """In place of a relay_path.Leg."""

    name: bytes
    path: Path
    number: int = 0


@dataclass
class End:
    """One end with a socket of its own, that binds itself."""

    sock: socket.socket
    leg: Leg
    own: bytes
    to: bytes
    got: list[bytes] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.binding = RelayBinding(self.leg, self.own, self.to, self.sock.send)  # type: ignore[arg-type]
        asyncio.get_running_loop().add_reader(self.sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self.sock.recv(65_535)
        except OSError:
            return
        if relay_datagram.receiver_of(data) is None:
            self.got.append(data)
        else:
            self.answers.append(data[0])
            self.binding.received(memoryview(data))

    def sealed(self, size: int = 100, receiver: bytes = b"") -> bytes:
        """Return what looks sealed to a relay: it cannot know."""
        return b"\x11" + (receiver or self.to) + os.urandom(size - 8)

    async def bind(self) -> None:
        self.binding.look()
        await eventually(lambda: self.binding.bound)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.sock)
        self.sock.close()


@dataclass
class Port:
    """A relay's UDP port, with pairs that a test joins."""

    limits: RelayLimits = field(default_factory=lambda: RelayLimits(bind_challenge_seconds=0.0))

    def __post_init__(self) -> None:
        self.core = RelayCore(self.limits, os.urandom)
        self.core.configure(RELAY, NETWORK, KeySet({KEY.kid: KEY.public_key}).to_jwks())
        self.relay = Relay(self.core, self.limits)
        self.forwarding = DatagramForwarding(self.core, self.limits, os.urandom, time.time, time.monotonic)
        self.port = DatagramPort(self.forwarding)
        assert self.port.listen("127.0.0.1", 0)
        assert self.port._sock is not None
        self.where = self.port._sock.getsockname()
        self.opened: list[Any] = []
        self.peers = 0

    def socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram_socket.prepare(sock)
        sock.setsockopt(17, 104, 0) if segments.SUPPORTED else None  # each by itself, so that a test can count them
        sock.connect(self.where)
        self.opened.append(sock)
        return sock

    def _leg(self, peer: Peer) -> tuple[Leg, list[Any]]:
        hello = peer.hello()
        self.peers += 1
        counter = RelayHello.unverified(hello).counter
        outputs = self.core.hello(self.peers, hello, time.time())
        return Leg(relay_datagram.leg_name(peer.admission.id, counter), Path(peer.admission)), outputs

    def pair(self, session: str = "session-1") -> tuple[End, End]:
        connector_leg, _ = self._leg(self.relay.connector(now=time.time()))
        client_leg, outputs = self._leg(self.relay.client(holder=session, now=time.time()))
        (self.paired,) = outputs
        assert isinstance(self.paired, Paired)
        self.forwarding.joined(self.paired.holder, self.paired.legs)
        ends = End(self.socket(), client_leg, TO_CLIENT, TO_CONNECTOR), End(self.socket(), connector_leg, TO_CONNECTOR, TO_CLIENT)
        self.opened += ends
        return ends

    async def bound(self) -> tuple[End, End]:
        client, connector = self.pair()
        await client.bind()
        await connector.bind()
        return client, connector


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    made = Port()
    yield made
    made.port.close()
    for one in made.opened:
        if isinstance(one, End):
            one.close()
    for one in made.opened:
        one.sock.close() if isinstance(one, End) else one.close()


async def quiet(sock: socket.socket) -> bool:
    await asyncio.sleep(0.05)
    try:
        sock.recv(65_535)
    except (BlockingIOError, ConnectionRefusedError):
        return True
    return False


async def test_sealed_datagrams_come_out_at_the_other_end_as_they_went_in(port: Port) -> None:
    client, connector = await port.bound()
    out = [client.sealed(size) for size in (OVERHEAD_BYTES, 100, 1232, 8972)]
    back = [connector.sealed(size) for size in (OVERHEAD_BYTES, 1472)]
    for data in out:
        client.sock.send(data)
    await eventually(lambda: connector.got == out)
    for data in back:
        connector.sock.send(data)
    await eventually(lambda: client.got == back)
    counts = port.forwarding.counts
    assert (counts.datagrams_from_clients, counts.bytes_from_clients) == (4, sum(map(len, out)))
    assert (counts.datagrams_from_connectors, counts.bytes_from_connectors) == (2, sum(map(len, back)))
    assert not counts.dropped


async def test_a_stranger_gets_no_answer_and_reaches_nobody(port: Port) -> None:
    client, connector = await port.bound()
    stranger = port.socket()
    sent = [
        b"",
        b"\x21",
        b"\x11",
        client.sealed(),
        connector.sealed(),
        b"\x21" + bytes(110),
        b"\x22" + bytes(63),
        os.urandom(500),
    ]
    for data in sent:
        stranger.send(data)
    await eventually(lambda: sum(port.forwarding.counts.dropped.values()) == len(sent))
    assert await quiet(stranger)
    assert client.got == connector.got == []


async def test_of_a_bound_address_what_names_another_receiver_goes_nowhere(port: Port) -> None:
    client, connector = await port.bound()
    client.sock.send(client.sealed(receiver=TO_CLIENT))
    client.sock.send(client.sealed(receiver=b"\0other!"))
    await eventually(lambda: port.forwarding.counts.dropped[Drop.UNKNOWN] == 2)
    assert client.got == connector.got == []


async def test_until_both_are_bound_nothing_is_forwarded(port: Port) -> None:
    client, connector = port.pair()
    await client.bind()
    client.sock.send(client.sealed())
    await eventually(lambda: port.forwarding.counts.dropped[Drop.ONE_SIDED] == 1)
    assert connector.got == []
    assert connector.answers == []


async def test_an_end_whose_address_changes_is_proven_and_then_found_there(port: Port) -> None:
    client, connector = await port.bound()
    former = client.sock
    client.close()
    client.sock = port.socket()
    client.binding._send = client.sock.send  # type: ignore[assignment]
    asyncio.get_running_loop().add_reader(client.sock, client._readable)
    lost = client.sealed()
    client.sock.send(lost)
    await eventually(lambda: port.forwarding.counts.dropped[Drop.UNKNOWN] == 1)
    client.answers.clear()
    client.binding._asked_at = 0.0
    client.binding.look()
    await eventually(lambda: client.answers == [relay_datagram.BIND_CHALLENGE, relay_datagram.BOUND])
    back = connector.sealed()
    connector.sock.send(back)
    await eventually(lambda: client.got == [back])
    assert former.fileno() < 0


async def test_the_end_of_a_pair_ends_the_way(port: Port) -> None:
    client, connector = await port.bound()
    port.forwarding.parted(port.paired.legs)
    client.sock.send(client.sealed())
    connector.sock.send(connector.sealed())
    await eventually(lambda: port.forwarding.counts.dropped[Drop.UNKNOWN] == 2)
    client.answers.clear()
    for _ in range(5):
        client.binding._asked_at = 0.0
        client.binding.look()
    await asyncio.sleep(0.05)
    assert client.answers == []
    assert client.binding.lost


@pytest.mark.skipif(not segments.SUPPORTED, reason="no UDP_SEGMENT here")
@pytest.mark.parametrize("refused", [0, errno.EIO, errno.EINVAL])
async def test_what_comes_together_leaves_together_where_the_kernel_takes_it(
    port: Port, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    client, connector = await port.bound()
    calls: list[int] = []
    send = segments.send

    def counted(sock: socket.socket, datagrams: memoryview, size: int, to: Any) -> None:
        if sock is port.port._sock:
            calls.append(len(datagrams))
            if refused:
                raise OSError(refused, "not on this interface")
        send(sock, datagrams, size, to)

    monkeypatch.setattr(datagram_port.segments, "send", counted)
    for _ in range(2):
        batch = [client.sealed(500) for _ in range(7)] + [client.sealed(300)]
        segments.send(client.sock, memoryview(b"".join(batch)), 500, None)
        await eventually(lambda: connector.got == batch)  # noqa: B023 - called at once
        connector.got.clear()
    assert calls == ([3800] if refused else [3800, 3800]), "where it refused once it is not asked again"
    assert port.forwarding.counts.datagrams_from_clients == 16


@pytest.mark.skipif(not segments.SUPPORTED, reason="no UDP_SEGMENT here")
async def test_of_a_batch_each_goes_where_it_says(port: Port) -> None:
    client, connector = await port.bound()
    batch = [client.sealed(200), client.sealed(200, b"\0other!"), client.sealed(200), bytes(200), client.sealed(200)]
    segments.send(client.sock, memoryview(b"".join(batch)), 200, None)
    await eventually(lambda: connector.got == [batch[0], batch[2], batch[4]])
    assert port.forwarding.counts.dropped == {Drop.UNKNOWN: 1, Drop.REFUSED: 1}


async def test_what_the_network_refuses_is_counted_and_the_next_one_goes(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    client, connector = await port.bound()
    sock = port.port._sock
    assert sock is not None

    class Refusing:
        """The relay's socket, on whose way out something is too large or there is no room."""

        def __init__(self, errors: list[int]) -> None:
            self.errors = errors

        def __getattr__(self, name: str) -> Any:
            return getattr(sock, name)

        def sendto(self, data: Any, to: Any) -> int:
            if self.errors:
                raise OSError(self.errors.pop(0), "refused")
            return sock.sendto(data, to)

    refusing = Refusing([errno.EMSGSIZE, errno.ENOBUFS])
    sender = port.forwarding.senders[client.sock.getsockname(), TO_CONNECTOR]
    data = client.sealed()
    for _ in range(3):
        port.port._forward(refusing, memoryview(data), len(data), sender)  # type: ignore[arg-type]
    await eventually(lambda: connector.got == [data])
    assert port.forwarding.counts.dropped == {Drop.NOT_SENT: 1, Drop.NO_ROOM: 1}


async def test_a_port_that_is_taken_is_told_and_no_reason_to_stop(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    assert not DatagramPort(port.forwarding).listen("127.0.0.1", port.where[1])
    assert "no datagrams are forwarded" in caplog.text


async def test_a_refresh_keeps_the_binding_and_without_an_admission_none_is_sent(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = await port.bound()
    number = client.leg.number
    client.binding.look()
    assert client.leg.number == number, "not due yet"
    client.leg.path.held, admission = None, client.leg.path.held
    client.binding._asked_at = 0.0
    client.binding.look()
    assert client.leg.number == number
    client.leg.path.held = admission
    client.binding._asked_at = 0.0
    client.binding.look()
    await eventually(lambda: client.binding._unanswered == 0)
    assert client.leg.number == number + 2, "the refresh, and the answer to the relay's question"


async def test_answers_to_former_binds_and_forged_ones_count_nothing(port: Port) -> None:
    client, _ = port.pair()
    client.binding.look()
    await eventually(lambda: client.binding.bound)
    key, number = client.leg.path.held.key, client.leg.number  # type: ignore[union-attr]
    client.answers.clear()
    for answer in (
        relay_datagram.challenge(key, client.own, number - 1, b"c" * 16),
        relay_datagram.challenge(b"x" * 32, client.own, number, b"c" * 16),
        relay_datagram.bound(b"x" * 32, client.own, number),
    ):
        assert not client.binding.received(memoryview(answer))
    assert client.leg.number == number, "none of them made it send anything"


async def test_a_relay_that_asks_on_and_on_is_answered_once_for_each_look(port: Port) -> None:
    client, _ = port.pair()
    key = client.leg.path.held.key  # type: ignore[union-attr]
    asyncio.get_running_loop().remove_reader(client.sock)
    client.binding.look()
    number = client.leg.number
    for cookie in range(1, 20):
        client.binding.received(memoryview(relay_datagram.challenge(key, client.own, client.leg.number, bytes([cookie]) * 16)))
    assert client.leg.number == number + 1
    client.binding._asked_at -= relay_binding.ANSWER_SECONDS
    client.binding.look()
    client.binding.received(memoryview(relay_datagram.challenge(key, client.own, client.leg.number, b"c" * 16)))
    assert client.leg.number == number + 3


async def test_a_look_while_a_far_relay_still_answers_does_not_begin_anew(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_binding, "ANSWER_SECONDS", 3600.0)
    client, _ = port.pair()
    key = client.leg.path.held.key  # type: ignore[union-attr]
    asyncio.get_running_loop().remove_reader(client.sock)
    client.binding.look()
    client.binding.received(memoryview(relay_datagram.challenge(key, client.own, client.leg.number, b"c" * 16)))
    number = client.leg.number
    client.binding.look()
    assert client.leg.number == number
    assert client.binding.received(memoryview(relay_datagram.bound(key, client.own, number)))
    assert client.binding.bound
