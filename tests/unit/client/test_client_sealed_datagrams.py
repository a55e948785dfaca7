"""The sealed datagram path of a link, with a connector's UDP port on loopback at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from klinket.client import datagram_way
from klinket.client import sealed_datagrams as module
from klinket.client.datagram_way import DatagramWay
from klinket.client.sealed_datagrams import SealedDatagrams
from klinket.connector.core import LinkRecord
from klinket.connector.datagram_paths import DatagramPaths
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, ServiceAccountUuid, SessionId, Thumbprint
from klinket.net import datagram_path, segments
from klinket.net.datagram_counts import DatagramCounts
from klinket.wire import datagram as wire
from klinket.wire.datagram import DatagramKind
from klinket.wire.link import Link
from klinket.wire.link_control import CloseDatagrams, DatagramsOpened, LinkMessage, OpenDatagrams
from tests.eventually import eventually
from tests.unit.taken import Taken

SESSION = SessionId("s" * 22)
FLOW, OTHER = b"flow-one", b"flow-two"


@dataclass
class Ends:
    """A client and a connector; `between`: the address the client is told, where it is not the connector's port."""

    paths: DatagramPaths = field(default_factory=DatagramPaths)
    told: list[LinkMessage] = field(default_factory=list)
    at_connector: Taken = field(default_factory=Taken)
    at_client: Taken = field(default_factory=Taken)
    between: tuple[str, int] | None = None
    busy: bool = False
    session: SessionId = SESSION
    link: Link = field(default_factory=lambda: Link(bytes(16), bytes(32), 4e9))

    def __post_init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        if self.paths._sock is None:
            self.paths.listen("127.0.0.1", self.port)
        self.client = SealedDatagrams(self.link, self._tell, self._where)

    def _where(self) -> tuple[int, Any]:
        return socket.AF_INET, self.between or ("127.0.0.1", self.port)

    def _tell(self, message: LinkMessage) -> bool:
        if self.busy:
            return False
        self.told.append(message)
        if isinstance(message, OpenDatagrams):
            principal = Principal(ServiceAccountUuid("u" * 36), Kid("k"), self.session)
            answer = self.paths.open(LinkRecord(self.link, principal, Thumbprint("t")), message)
            asyncio.get_running_loop().call_soon(self.client.answered, answer)
        elif isinstance(message, CloseDatagrams):
            self.paths.close_path(self.link.handle)
        return True

    def begin(self) -> None:
        """Have one flow at both ends."""
        self.paths.add(self.session, FLOW, self.at_connector.take)
        self.client.add(FLOW, self.at_client.take)

    async def working(self) -> None:
        """Have one flow, whose path works in both directions."""
        self.begin()
        await eventually(lambda: self.client.works and self.paths.send(self.session, FLOW, b"first"))
        await eventually(lambda: bool(self.at_client))
        self.at_client.clear()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.client.close()
    made.paths.close()


@dataclass
class Line:
    """What stands between: drops, repeats and keeps datagrams as a test says."""

    to: tuple[str, int]
    drops: bool = False
    twice: bool = False
    seen: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client: Any = None
        for sock in (self.near, self.far):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self.near, self._out)
        loop.add_reader(self.far, self._in)

    def _out(self) -> None:
        data, self.client = self.near.recvfrom(65_535)
        self.seen.append(data)
        for _ in range(0 if self.drops else 1 + self.twice):
            self.far.sendto(data, self.to)

    def _in(self) -> None:
        data = self.far.recv(65_535)
        if not self.drops and self.client is not None:
            self.near.sendto(data, self.client)

    def close(self) -> None:
        for sock in (self.near, self.far):
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()


@pytest.fixture
async def line(ends: Ends) -> AsyncIterator[Line]:
    made = Line(("127.0.0.1", ends.port))
    ends.between = made.near.getsockname()
    yield made
    made.close()


async def test_datagrams_go_both_ways_one_by_one(ends: Ends) -> None:
    await ends.working()
    for content in (b"", b"one", bytes(1200)):
        assert ends.client.send(FLOW, content)
        await eventually(lambda: bool(ends.at_connector))
        assert ends.at_connector.pop() == content
        assert ends.paths.send(ends.session, FLOW, content)
        await eventually(lambda: bool(ends.at_client))
        assert ends.at_client.pop() == content


SIZES = [100] * 40 + [99, 100, 101, 0, 0, 1200] + [1200] * 70 + [8, 8, 1200, 1201]


async def gathered(ends: Ends) -> list[bytes]:
    """Send datagrams of SIZES each way while they are gathered; return them."""
    contents = [bytes((number,)) * size for number, size in enumerate(SIZES)]
    for send, at in (
        (lambda content: ends.client.send(FLOW, content), ends.at_connector),
        (lambda content: ends.paths.send(ends.session, FLOW, content), ends.at_client),
    ):
        await eventually(lambda: send(bytes(1300)))  # noqa: B023 - called at once
        await eventually(lambda: bool(at))  # noqa: B023
        at.clear()
        datagram_path.gather()
        assert all(send(content) for content in contents)
        datagram_path.leave_all()
        await eventually(lambda: len(at) >= len(contents))  # noqa: B023
    return contents


async def test_datagrams_that_leave_together_arrive_one_by_one_and_in_order(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    send = segments.send

    def counted(*given: Any) -> None:
        nonlocal calls
        calls += 1
        send(*given)

    monkeypatch.setattr(segments, "send", counted)
    await ends.working()
    contents = await gathered(ends)
    assert ends.at_connector == ends.at_client == contents
    if segments.SUPPORTED:
        assert 2 < calls < len(contents) / 3


@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL, errno.EMSGSIZE])
async def test_where_the_kernel_cuts_none_each_leaves_by_itself(ends: Ends, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, "not on this interface")

    monkeypatch.setattr(segments, "send", refused)
    await ends.working()
    contents = await gathered(ends)
    assert ends.at_connector == ends.at_client == contents


async def test_what_the_kernel_has_no_room_for_together_is_lost_together(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no room")

    await ends.working()
    monkeypatch.setattr(segments, "send", refused)
    datagram_path.gather()
    assert all(ends.paths.send(ends.session, FLOW, b"lost") for _ in range(5))
    datagram_path.leave_all()
    assert ends.paths.counts().no_room == 5
    assert ends.paths.send(ends.session, FLOW, b"next"), "by itself"
    await eventually(lambda: ends.at_client == [b"next"])


async def test_one_that_is_larger_than_the_path_was_found_to_carry_goes_as_a_frame(ends: Ends) -> None:
    await ends.working()
    await eventually(lambda: ends.client.send(FLOW, bytes(8900)))  # loopback carries the largest size that is probed
    assert not ends.client.send(FLOW, bytes(9000))
    assert not ends.paths.send(ends.session, FLOW, bytes(9000))


async def test_before_a_probe_is_answered_nothing_is_sent_sealed(ends: Ends, line: Line) -> None:
    line.drops = True
    ends.begin()
    await eventually(lambda: bool(line.seen))
    assert not ends.client.send(FLOW, b"")
    assert not ends.paths.send(ends.session, FLOW, b"")


async def test_a_path_that_falls_silent_is_given_up_and_tried_again(
    ends: Ends, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.1)
    await ends.working()
    line.drops = True
    ends.client.send(FLOW, b"lost")
    await eventually(lambda: not ends.client.works)
    assert isinstance(ends.told[-1], CloseDatagrams)
    assert not ends.client.send(FLOW, b""), "as a frame"
    assert not ends.paths.send(ends.session, FLOW, b""), "the connector follows"
    line.drops = False
    await eventually(lambda: ends.client.works)
    assert len([one for one in ends.told if isinstance(one, OpenDatagrams)]) >= 2
    await eventually(lambda: ends.paths.send(ends.session, FLOW, b"back"))
    await eventually(lambda: ends.at_client == [b"back"])


async def test_a_closed_port_is_given_up_at_once(ends: Ends) -> None:
    ends.paths.close()
    ends.client._asked = (ends.client._direct, bytes(7), bytes(32))
    ends.client.add(FLOW, ends.at_client.take)
    ends.client.answered(DatagramsOpened(receiver="00" * 7, random="00" * 32))
    await eventually(lambda: any(isinstance(one, CloseDatagrams) for one in ends.told))
    assert not ends.client.works


async def test_a_datagram_that_comes_twice_is_delivered_once(ends: Ends, line: Line) -> None:
    line.twice = True
    await ends.working()
    for number in range(20):
        ends.client.send(FLOW, b"%d" % number)
    await eventually(lambda: len(ends.at_connector) >= 20)
    await asyncio.sleep(0.05)
    assert ends.at_connector == [b"%d" % number for number in range(20)]


async def test_what_names_no_path_or_does_not_verify_is_never_answered(ends: Ends) -> None:
    await ends.working()
    (one,) = ends.paths._by_receiver
    where = ends.paths._by_receiver[one].path.address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", ends.port))
        stranger.setblocking(False)
        for data in (b"", b"\x11", bytes(100), b"\x11" + one + bytes(92), b"\x11" + bytes(7) + bytes(92)):
            stranger.send(data)
        await eventually(lambda: ends.paths.counts().no_path >= 4)
        await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            stranger.recv(1)
    assert ends.paths._by_receiver[one].path.address == where
    assert ends.at_connector == []


async def test_an_answer_is_never_longer_than_what_asked_for_it(ends: Ends, line: Line) -> None:
    answers: list[int] = []
    inner = line._in

    def watched() -> None:
        data = line.far.recv(65_535, socket.MSG_PEEK)
        answers.append(len(data))
        inner()

    asyncio.get_running_loop().add_reader(line.far, watched)
    ends.begin()
    await eventually(lambda: ends.client.works and len(answers) > 3)
    assert sum(answers) <= sum(map(len, line.seen))


async def test_what_has_become_of_datagrams_is_counted_and_stays_counted_when_the_path_ends(ends: Ends, liar: Liar) -> None:
    ends.paths.add(ends.session, FLOW, ends.at_connector.take)
    await liar.proven(0)
    sealed = liar.keys.sealer.seal(DatagramKind.PAYLOAD, FLOW, b"once")
    forged = sealed[:8] + (1000).to_bytes(8, "big") + sealed[16:]
    for datagram in (sealed, sealed, forged, bytes(50), liar.keys.sealer.seal(DatagramKind.PAYLOAD, OTHER, b"whose?")):
        liar.socks[0].send(datagram)
    ends.paths.send(ends.session, FLOW, b"back")
    await eventually(lambda: ends.paths.counts().no_flow == 1)
    expected = DatagramCounts(sent=1, received=1, challenges=1, no_path=1, replayed=1, forged=1, no_flow=1)
    assert ends.paths.counts() == expected
    ends.paths.close_path(ends.link.handle)
    assert (ends.paths.open_paths, ends.paths.counts()) == (0, expected)


async def test_a_recorded_datagram_moves_no_address_and_is_not_delivered_again(ends: Ends, line: Line) -> None:
    await ends.working()
    ends.client.send(FLOW, b"recorded")
    await eventually(lambda: ends.at_connector == [b"recorded"])
    (one,) = ends.paths._by_receiver.values()
    where = one.path.address
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief:
        for data in line.seen:
            thief.sendto(data, ("127.0.0.1", ends.port))
    await asyncio.sleep(0.05)
    assert one.path.address == where
    assert ends.at_connector == [b"recorded"]


@dataclass
class Liar:
    """A client that seals right, and whose datagrams come from wherever it says. `socks`: its addresses."""

    ends: Ends
    socks: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        principal = Principal(ServiceAccountUuid("u" * 36), Kid("k"), self.ends.session)
        opened = self.ends.paths.open(
            LinkRecord(self.ends.link, principal, Thumbprint("t")), OpenDatagrams(receiver="01" * 7, random="02" * 32)
        )
        assert isinstance(opened, DatagramsOpened)
        self.receiver, random = opened.path()
        self.keys = wire.client_keys(self.ends.link, b"\1" * 7, self.receiver, b"\2" * 32, random)
        for _ in range(2):
            self.socks.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.socks[-1].connect(("127.0.0.1", self.ends.port))
            self.socks[-1].setblocking(False)

    @property
    def path(self) -> datagram_path.ConnectorPath:
        return self.ends.paths._by_receiver[self.receiver].path

    def say(self, sock: int, kind: DatagramKind, content: bytes, flow: bytes = FLOW) -> None:
        self.socks[sock].send(self.keys.sealer.seal(kind, flow, content))

    def probe(self, sock: int, proof: bytes = bytes(wire.PROOF_BYTES)) -> None:
        self.say(sock, DatagramKind.PROBE, wire.probe(1232, proof) + bytes(1200))

    async def heard(self, sock: int) -> tuple[DatagramKind, bytes]:
        async with asyncio.timeout(10):
            kind, _, content = self.keys.opener.open(await asyncio.get_running_loop().sock_recv(self.socks[sock], 65_535))
        return kind, content

    async def proven(self, sock: int) -> None:
        self.probe(sock)
        kind, proof = await self.heard(sock)
        assert kind is DatagramKind.CHALLENGE
        self.probe(sock, proof)
        assert (await self.heard(sock))[0] is DatagramKind.PROBE_ANSWER

    async def quiet(self, sock: int) -> bool:
        await asyncio.sleep(0.05)
        try:
            self.socks[sock].recv(65_535)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


@pytest.fixture
async def liar(ends: Ends) -> AsyncIterator[Liar]:
    made = Liar(ends)
    yield made
    made.close()


async def test_payload_goes_to_an_address_only_after_its_secret_has_come_back_from_there(ends: Ends, liar: Liar) -> None:
    ends.paths.add(ends.session, FLOW, ends.at_connector.take)
    liar.probe(0)
    kind, proof = await liar.heard(0)
    assert (kind, len(proof)) == (DatagramKind.CHALLENGE, wire.PROOF_BYTES)
    liar.probe(0, bytes(wire.PROOF_BYTES - 1) + b"\1")
    liar.say(0, DatagramKind.PAYLOAD, bytes(1000))
    await eventually(lambda: bool(ends.at_connector))
    assert not ends.paths.send(ends.session, FLOW, b"answer"), "as a frame"
    liar.probe(0, proof)
    assert (await liar.heard(0))[0] is DatagramKind.PROBE_ANSWER
    assert ends.paths.send(ends.session, FLOW, b"answer")
    assert await liar.heard(0) == (DatagramKind.PAYLOAD, b"answer")


async def test_a_secret_that_went_to_one_address_proves_no_other(liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_path, "CHALLENGE_SECONDS", 0.0)
    liar.probe(0)
    _, proof = await liar.heard(0)
    liar.probe(1, proof)
    kind, other = await liar.heard(1)
    assert kind is DatagramKind.CHALLENGE
    assert other != proof
    liar.probe(0, proof)
    assert (await liar.heard(0))[0] is DatagramKind.CHALLENGE, "the newest address's secret alone counts"
    assert liar.path.address is None


async def test_until_a_new_address_is_proven_payload_goes_to_the_former(
    ends: Ends, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram_path, "CHALLENGE_SECONDS", 0.0)
    ends.paths.add(ends.session, FLOW, ends.at_connector.take)
    await liar.proven(0)
    liar.say(1, DatagramKind.PAYLOAD, bytes(100))
    kind, proof = await liar.heard(1)
    assert kind is DatagramKind.CHALLENGE, "so that a client whose address has changed is asked at once"
    assert ends.paths.send(ends.session, FLOW, b"still there")
    assert await liar.heard(0) == (DatagramKind.PAYLOAD, b"still there")
    liar.probe(1, proof)
    assert (await liar.heard(1))[0] is DatagramKind.PROBE_ANSWER
    assert ends.paths.send(ends.session, FLOW, b"moved")
    assert await liar.heard(1) == (DatagramKind.PAYLOAD, b"moved")
    assert await liar.quiet(0)


async def test_an_address_that_is_not_proven_gets_few_short_datagrams_and_none_longer_than_what_came(
    ends: Ends, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram_path, "CHALLENGE_SECONDS", 3600.0)
    liar.path._challenged_at = -3600.0
    liar.say(0, DatagramKind.PAYLOAD, bytes(wire.PROOF_BYTES - 1))
    assert await liar.quiet(0)
    for _ in range(50):
        liar.probe(0)
    assert (await liar.heard(0))[0] is DatagramKind.CHALLENGE
    assert await liar.quiet(0)


async def test_a_client_proves_again_and_again_where_it_is(ends: Ends, liar: Liar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram_path, "CHALLENGE_SECONDS", 0.0)
    monkeypatch.setattr(datagram_path, "PROOF_SECONDS", -1.0)
    await liar.proven(0)
    assert (await liar.heard(0))[0] is DatagramKind.CHALLENGE, "in a time of nothing it is old again"
    former = liar.path._proven_at
    liar.probe(0)
    assert (await liar.heard(0))[0] is DatagramKind.PROBE_ANSWER, "where it was proven to be it is served meanwhile"
    kind, proof = await liar.heard(0)
    assert kind is DatagramKind.CHALLENGE
    liar.probe(0, proof)
    assert (await liar.heard(0))[0] is DatagramKind.PROBE_ANSWER
    assert liar.path._proven_at > former


async def test_nothing_goes_for_long_to_an_address_that_a_client_writes_but_does_not_read_any_more(
    ends: Ends, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends.paths.add(ends.session, FLOW, ends.at_connector.take)
    await liar.proven(0)
    monkeypatch.setattr(datagram_path, "PROOF_SECONDS", 0.0)
    for number in range(3):
        liar.probe(0)
        liar.say(0, DatagramKind.PAYLOAD, b"%d" % number)
    await eventually(lambda: len(ends.at_connector) == 3)
    ends.paths.end_silent()
    assert ends.paths.send(ends.session, FLOW, b"still there")
    monkeypatch.setattr(datagram_path, "MOST_PROOF_SECONDS", 0.0)
    ends.paths.end_silent()
    assert not ends.paths.send(ends.session, FLOW, b"as a frame")
    assert liar.path.address is None
    monkeypatch.setattr(datagram_path, "MOST_PROOF_SECONDS", 60.0)
    while (await liar.heard(0))[0] is not DatagramKind.PAYLOAD:
        pass
    await asyncio.sleep(datagram_path.CHALLENGE_SECONDS)
    liar.probe(0)
    kind, proof = await liar.heard(0)
    assert kind is DatagramKind.CHALLENGE
    liar.probe(0, proof)
    assert (await liar.heard(0))[0] is DatagramKind.PROBE_ANSWER
    assert ends.paths.send(ends.session, FLOW, b"there again")


@dataclass
class Asked:
    """A client's path, and the keys of a connector that sends it what it likes."""

    path: datagram_path.ClientPath
    connector: wire.DatagramKeys
    far: socket.socket

    def hear(self, kind: DatagramKind, content: bytes) -> None:
        sealed = memoryview(self.connector.sealer.seal(kind, wire.NO_FLOW, content))
        self.path.received(sealed, len(sealed))

    def probes(self) -> list[tuple[int, bytes]]:
        """Return what the client's probes of now say: the size found, the proof."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                probe = wire.read_probe(self.connector.opener.open(self.far.recv(65_535))[2])
                assert probe is not None
                found.append(probe)
        return found


@pytest.fixture
def asked(ends: Ends) -> Iterator[Asked]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far.setblocking(False)
    keys = wire.client_keys(ends.link, b"\1" * 7, b"\2" * 7, bytes(32), bytes(32))
    yield Asked(
        datagram_path.ClientPath(keys, near), wire.connector_keys(ends.link, b"\1" * 7, b"\2" * 7, bytes(32), bytes(32)), far
    )
    near.close()
    far.close()


async def test_challenges_without_end_are_answered_at_the_pace_of_an_honest_connector(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram_path, "CHALLENGE_SECONDS", 3600.0)
    asked.path._answered_at = -3600.0
    for number in range(20):
        asked.hear(DatagramKind.CHALLENGE, bytes((number,)) * wire.PROOF_BYTES)
    assert asked.probes() == [(0, bytes(wire.PROOF_BYTES))]
    asked.path.probe(1232)
    assert asked.probes() == [(0, b"\x13" * wire.PROOF_BYTES)], "the newest proof is in the next one all the same"
    asked.path._answered_at = -3600.0
    asked.hear(DatagramKind.CHALLENGE, b"short")
    assert asked.probes() == []


async def test_answers_to_what_was_never_probed_lead_to_nothing(asked: Asked) -> None:
    for size in (0, 1, 18, 1000, 1233 - wire.OVERHEAD_BYTES, 9000, 60_000):
        asked.hear(DatagramKind.PROBE_ANSWER, bytes(size))
    assert asked.path.size == 0
    assert asked.probes() == []
    asked.hear(DatagramKind.PROBE_ANSWER, bytes(1232 - wire.OVERHEAD_BYTES))
    assert asked.path.size == 1232
    assert {found for found, _ in asked.probes()} == {1232}


async def test_a_client_whose_address_changes_goes_on_sealed(ends: Ends, line: Line) -> None:
    await ends.working()
    (one,) = ends.paths._by_receiver.values()
    former = one.path.address
    loop = asyncio.get_running_loop()
    loop.remove_reader(line.far)
    line.far.close()
    line.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    line.far.bind(("127.0.0.1", 0))
    line.far.setblocking(False)
    loop.add_reader(line.far, line._in)
    await asyncio.sleep(datagram_path.CHALLENGE_SECONDS)
    assert ends.client.send(FLOW, bytes(100))
    await eventually(lambda: one.path.address not in (former, None))
    assert ends.paths.send(ends.session, FLOW, b"found")
    await eventually(lambda: ends.at_client == [b"found"])


async def test_a_flow_that_ended_gets_and_sends_nothing(ends: Ends) -> None:
    await ends.working()
    ends.paths.remove(ends.session, FLOW, ends.at_connector.take)
    assert ends.client.send(FLOW, b"late")
    ends.paths.add(ends.session, OTHER, ends.at_connector.take)
    ends.client.send(OTHER, b"other")
    await eventually(lambda: bool(ends.at_connector))
    assert ends.at_connector == [b"other"]


async def test_the_end_of_a_link_ends_its_path(ends: Ends) -> None:
    await ends.working()
    ends.paths.close_path(ends.link.handle)
    assert not ends.paths.send(ends.session, FLOW, b"")
    assert not ends.paths._by_receiver
    ends.client.send(FLOW, b"into nothing")
    await asyncio.sleep(0.02)
    assert ends.at_connector == []


async def test_a_new_path_of_a_session_takes_the_place_of_the_former(ends: Ends) -> None:
    await ends.working()
    second = Ends(paths=ends.paths, session=ends.session, link=Link(b"2" * 16, b"3" * 32, 4e9))
    second.client.close()
    second.client = SealedDatagrams(second.link, second._tell, ends._where)
    second.client.take_over(ends.client)
    assert ends.client.successor is second.client
    await eventually(lambda: second.client.works and ends.paths.send(ends.session, FLOW, b"new"))
    await eventually(lambda: b"new" in ends.at_client)
    assert len(ends.paths._by_receiver) == 1
    second.client.close()


async def test_a_silent_path_is_forgotten_at_the_connector(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    from klinket.connector import datagram_paths

    await ends.working()
    ends.paths.end_silent()
    assert ends.paths._by_receiver
    monkeypatch.setattr(datagram_paths, "DATAGRAM_PATH_SILENT_SECONDS", -1.0)
    ends.paths.end_silent()
    assert not ends.paths._by_receiver


async def test_a_copied_process_seals_nothing_more(ends: Ends) -> None:
    await ends.working()
    datagram_path.forget_all()
    assert not ends.client.send(FLOW, b"")
    assert not ends.paths.send(ends.session, FLOW, b"")


async def test_a_path_without_flows_ends(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(module, "UNUSED_SECONDS", 0.0)
    await ends.working()
    ends.client.remove(FLOW, ends.client._flows[FLOW])
    await eventually(lambda: not ends.client.works)
    assert isinstance(ends.told[-1], CloseDatagrams)


async def test_what_could_not_be_told_is_told_later(ends: Ends, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.02)
    ends.busy = True
    ends.begin()
    await asyncio.sleep(0.05)
    assert not ends.told
    ends.busy = False
    await eventually(lambda: ends.client.works)
    ends.busy = line.drops = True
    ends.client.send(FLOW, b"lost")
    await eventually(lambda: not ends.client.works)
    assert ends.paths._by_receiver
    ends.busy = False
    await eventually(lambda: not ends.paths._by_receiver)


def holds_in_a_child(true: Callable[[], bool]) -> bool:
    if not (child := os.fork()):
        os._exit(0 if true() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_a_child_of_fork_has_neither_socket_nor_keys(ends: Ends) -> None:
    await ends.working()
    assert holds_in_a_child(lambda: ends.client._sock is None and ends.paths._sock is None and not ends.client.works)
    assert ends.client.send(FLOW, b"the parent goes on")


async def test_a_connector_that_never_answers_holds_up_neither_a_way_over_a_relay_nor_the_next_attempt(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(datagram_way, "ANSWER_SECONDS", 0.05)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)
    asked: list[str] = []

    def tell(word: str) -> Callable[[LinkMessage], bool]:
        return lambda message: asked.append(word) is None

    relayed = DatagramWay(tell("relayed"), ends._where)
    client = SealedDatagrams(ends.link, tell("direct"), ends._where, relayed)
    client.add(FLOW, ends.at_client.take)
    assert asked == ["direct"]
    await eventually(lambda: asked[:2] == ["direct", "relayed"])
    assert not client.works
    client.close()
