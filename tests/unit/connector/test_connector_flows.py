"""Flows on real pipes and real resources: honest answers, and an end of access that nothing outlives."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from klinket.connector import dial
from klinket.connector import flows as connector_flows
from klinket.connector.core import LinkRecord
from klinket.connector.events import FlowEventLog
from klinket.connector.flows import FlowServer
from klinket.connector.pipes import ProvenPipes
from klinket.connector.state import ConnectorState
from klinket.domain.cut import CutScope
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net import sockets
from klinket.net.pipe_receiver import Frame
from klinket.wire.control import CutFlow, FlowEvent
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer
from tests.unit.connector.conftest import ACCOUNT, NOW, World, request, resource, rule, tcp
from tests.unit.connector.test_connector_dial import closed_port, descriptors, silent_port
from tests.unit.net.conftest import Ends, pipe_ends

LOOPBACK = resource(5, "127.0.0.1")
RELAY = 7


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@dataclass
class Served:
    """A flow server with one pipe of a client that was granted loopback by address."""

    world: World
    link: LinkRecord
    server: FlowServer
    events: FlowEventLog
    ends: Ends
    serving: asyncio.Task[None]

    async def ask(self, destination: Destination) -> Frame:
        """Send OPEN; return the answer."""
        await self.ends.client.send(FrameType.OPEN, request(destination).encode())
        return await self.answer()

    async def answer(self) -> Frame:
        async with asyncio.timeout(5):
            return await self.ends.client.receive()

    async def opened(self, destination: Destination) -> OpenAnswer:
        frame = await self.ask(destination)
        assert frame.type is FrameType.OPENED, frame
        return OpenAnswer.decode(frame.content)

    async def failed(self, destination: Destination) -> Failure:
        frame = await self.ask(destination)
        assert frame.type is FrameType.FAIL
        return Failure.decode(frame.content)

    def cut(self) -> list[CutFlow]:
        """End everything of the account; return what a receipt says."""
        cut = self.world.cut(CutScope.of_account(ACCOUNT), reason=FlowFailure.SERVICE_KEY_REVOKED)
        return self.server.end(self.world.core.apply_cut(cut, NOW), time.monotonic())

    async def over(self, seconds: float = 3.0) -> None:
        """Wait until the pipe is served no more."""
        async with asyncio.timeout(seconds):
            await asyncio.wait([self.serving])

    async def told(self) -> list[FlowEvent]:
        await self.events.spool()
        return [event async for batch in self.events.unsent() for event in batch.events]


@pytest.fixture
async def served(world: World, tmp_path: Path) -> AsyncIterator[Served]:
    events = FlowEventLog(ConnectorState(tmp_path), lambda: NOW)
    pipes = ProvenPipes(100)
    server = FlowServer(world.core, events, lambda: NOW, set, pipes)
    link = world.granted(LOOPBACK)
    ends = pipe_ends()

    async def serve() -> None:
        pipes.enter(ends.connector, link)
        await server.serve(ends.connector, link, RELAY, await ends.connector.receive())

    serving = asyncio.ensure_future(serve())
    yield Served(world, link, server, events, ends, serving)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    ends.client.abort()
    ends.connector.abort()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def where(sock: socket.socket, protocol: TransportProtocol = TransportProtocol.TCP) -> Destination:
    return Destination("127.0.0.1", sock.getsockname()[1], protocol)


async def accepted(listener: socket.socket) -> socket.socket:
    async with asyncio.timeout(5):
        return (await asyncio.get_running_loop().sock_accept(listener))[0]


async def is_reset(sock: socket.socket) -> bool:
    try:
        async with asyncio.timeout(3):
            while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return False


# ---- TCP


async def test_a_granted_flow_is_dialled_carried_and_told(served: Served, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    answer = await served.opened(where(listener))
    assert answer.address == "127.0.0.1"
    remote = await accepted(listener)
    await served.ends.client.send(FrameType.DATA, b"question")
    assert await loop.sock_recv(remote, 100) == b"question"
    await loop.sock_sendall(remote, b"the answer")
    assert (await served.answer()).content == b"the answer"
    await served.ends.client.send(FrameType.FIN)
    assert await loop.sock_recv(remote, 100) == b""
    remote.close()
    assert (await served.answer()).type is FrameType.FIN
    # the pipe carries another flow, and the table is empty between them
    await served.opened(where(listener))
    assert served.world.core.flows == 1
    established, closed, again = await served.told()
    assert (established.event, closed.event, again.event) == ("established", "closed", "established")
    assert (closed.bytes_from_client, closed.bytes_to_client, closed.failure) == (8, 10, None)
    assert (closed.relay, closed.resource_ip, established.resource_ip) == (RELAY, "127.0.0.1", "127.0.0.1")
    (await accepted(listener)).close()


async def test_what_is_not_granted_is_refused_without_dialling(served: Served, listener: socket.socket) -> None:
    failure = await served.failed(tcp("127.0.0.2", listener.getsockname()[1]))
    assert failure.failure is FlowFailure.NOT_GRANTED
    await served.over()
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert [(event.event, event.host) for event in await served.told()] == [("denied", "127.0.0.2")]
    assert served.world.core.flows == 0


async def test_the_resources_answer_is_told_as_it_was(served: Served) -> None:
    failure = await served.failed(tcp("127.0.0.1", closed_port()))
    assert failure.failure is FlowFailure.REFUSED
    await served.over()
    assert [(event.event, event.failure) for event in await served.told()] == [("failed", "refused")]
    assert served.world.core.flows == 0


async def test_a_resource_that_does_not_answer(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "DIAL_SECONDS", 0.3)
    with silent_port() as port:
        assert (await served.failed(tcp("127.0.0.1", port))).failure is FlowFailure.TIMED_OUT


async def test_a_name_that_leads_to_loopback(served: Served, listener: socket.socket) -> None:
    served.world.core.present_grant(served.link, served.world.grant(served.link, resource(6, "localhost"), stamp=(1, 11)), NOW)
    assert (await served.failed(tcp("localhost", listener.getsockname()[1]))).failure is FlowFailure.ADDRESS_FORBIDDEN


async def test_a_flow_begins_with_open(served: Served) -> None:
    await served.ends.client.send(FrameType.DATA, b"GET /")
    with pytest.raises(ConnectionResetError):
        await served.answer()
    await served.over()


async def test_a_resource_that_resets_is_a_reset_for_the_client(served: Served, listener: socket.socket) -> None:
    await served.opened(where(listener))
    sockets.reset(await accepted(listener))
    frame = await served.answer()
    assert (frame.type, Failure.decode(frame.content).failure) == (FrameType.FAIL, FlowFailure.RESET)
    await served.over()
    assert [event.failure for event in await served.told() if event.event == "closed"] == ["reset"]
    assert served.world.core.flows == 0


async def test_a_pipe_without_a_next_flow_ends(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_flows, "PIPE_IDLE_SECONDS", 0.1)
    ends = pipe_ends()
    server = FlowServer(world.core, FlowEventLog(ConnectorState(tmp_path), lambda: NOW), lambda: NOW, set)
    async with asyncio.timeout(3):
        await server.serve(ends.connector, world.granted(LOOPBACK), RELAY)
    assert ends.connector.closed
    ends.client.abort()


async def test_a_resource_that_is_gone_when_it_has_just_accepted_is_told_and_leaves_no_socket(
    served: Served, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dial.reach

    async def reach(*arguments: object) -> socket.socket:
        sock = await real(*arguments)  # type: ignore[arg-type]
        sockets.reset(await accepted(listener))
        async with asyncio.timeout(5):
            while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x07":  # TCP_CLOSE
                await asyncio.sleep(0.005)
        return sock

    monkeypatch.setattr(dial, "reach", reach)
    before = descriptors()
    assert (await served.failed(where(listener))).failure is FlowFailure.RESET
    await served.over()
    assert served.world.core.flows == 0
    assert descriptors() <= before
    assert [(event.event, event.failure) for event in await served.told()] == [("failed", "reset")]


async def test_a_flow_whose_server_is_stopped_is_reset_on_both_sides_and_told(served: Served, listener: socket.socket) -> None:
    await served.opened(where(listener))
    remote = await accepted(listener)
    await served.ends.client.send(FrameType.DATA, b"12345")
    assert await asyncio.get_running_loop().sock_recv(remote, 100) == b"12345"
    served.serving.cancel()
    await served.over()
    assert await is_reset(remote)
    assert (await served.answer()).type is FrameType.FAIL
    with pytest.raises(ConnectionError):
        await served.answer()
    assert served.world.core.flows == 0
    closed = [event for event in await served.told() if event.event == "closed"]
    assert [(event.failure, event.bytes_from_client) for event in closed] == [("reset", 5)]


async def test_an_association_whose_server_is_stopped_ends_and_is_told(served: Served, udp_listener: socket.socket) -> None:
    source = await udp_opened(served, udp_listener)
    served.serving.cancel()
    await served.over()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(source)  # its port is free: the socket is gone
    closed = [event for event in await served.told() if event.event == "closed"]
    assert [(event.failure, event.bytes_from_client, event.bytes_to_client) for event in closed] == [("reset", 4, 9)]


async def test_a_connector_that_is_removed_ends_every_flow_and_forgets_every_grant(
    served: Served, listener: socket.socket
) -> None:
    await served.opened(where(listener))
    remote = await accepted(listener)
    (ended,) = served.server.end(served.world.core.end_all(), time.monotonic())
    assert ended.port == listener.getsockname()[1]
    assert await is_reset(remote)
    assert served.world.core.flows == 0
    assert served.world.core.link(served.link.link.handle, NOW) is None
    assert served.world.core.next_deadline() is None


# ---- the end of access


async def test_a_cut_resets_a_live_flow_on_both_sides(served: Served, listener: socket.socket) -> None:
    await served.opened(where(listener))
    remote = await accepted(listener)
    (receipt,) = served.cut()
    assert (receipt.host, receipt.port, receipt.resource) == ("127.0.0.1", listener.getsockname()[1], LOOPBACK.id)
    assert receipt.stopped_after_ms < 1000
    frame = await served.answer()
    assert Failure.decode(frame.content).failure is FlowFailure.SERVICE_KEY_REVOKED
    assert await is_reset(remote)
    await served.over()
    assert [event.failure for event in await served.told() if event.event == "closed"] == ["service-key-revoked"]
    remote.close()


async def test_a_cut_while_dialling_ends_the_dialling_at_once(served: Served) -> None:
    with silent_port() as port:
        await served.ends.client.send(FrameType.OPEN, request(tcp("127.0.0.1", port)).encode())
        while not served.world.core.flows:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        assert len(served.cut()) == 1
        frame = await served.answer()
        assert Failure.decode(frame.content).failure is FlowFailure.CUT
        assert time.monotonic() - begun < 2
    assert served.world.core.flows == 0


async def test_a_cut_strikes_a_flow_whose_client_does_not_read_the_opened_frame(served: Served, listener: socket.socket) -> None:
    # The client takes nothing: OPENED cannot go out, and the flow is neither being dialled nor carried any more.
    connector = served.ends.connector
    connector.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    served.ends.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    rounds_blocked = 0
    while rounds_blocked < 10:
        rounds_blocked += 1
        await asyncio.sleep(0.02)
        try:
            while connector.sock.send(bytes(100)):
                rounds_blocked = 0
        except BlockingIOError:
            pass
    await served.ends.client.send(FrameType.OPEN, request(where(listener)).encode())
    remote = await accepted(listener)
    await asyncio.sleep(0.1)
    assert len(served.cut()) == 1
    assert await is_reset(remote)
    await served.over()
    assert connector.closed
    remote.close()


async def test_a_grant_that_ended_while_dialling_is_answered_so(served: Served, listener: socket.socket) -> None:
    now = [NOW]
    server = FlowServer(served.world.core, served.events, lambda: now.pop() if len(now) > 1 else NOW + 400, set)
    now.append(NOW)  # first for open(); everything after that is too late
    ends = pipe_ends()
    serving = asyncio.ensure_future(server.serve(ends.connector, served.link, RELAY))
    await ends.client.send(FrameType.OPEN, request(where(listener)).encode())
    frame = await ends.client.receive()
    assert Failure.decode(frame.content).failure is FlowFailure.GRANT_EXPIRED
    assert await is_reset(await accepted(listener))
    await serving
    ends.client.abort()


# ---- UDP


@pytest.fixture
def udp_listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        yield sock


async def received(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """Return the next datagram and its source (uvloop has no sock_recvfrom)."""
    async with asyncio.timeout(5):
        while True:
            try:
                return sock.recvfrom(65_535)
            except BlockingIOError:
                await asyncio.sleep(0.005)


async def udp_opened(served: Served, udp_listener: socket.socket) -> tuple[str, int]:
    """Open an association that has echoed; return the connector's address."""
    await served.opened(where(udp_listener, TransportProtocol.UDP))
    await served.ends.client.send(FrameType.DATAGRAM, b"ping")
    content, source = await received(udp_listener)
    udp_listener.sendto(content + b" pong", source)
    frame = await served.answer()
    assert (frame.type, frame.content) == (FrameType.DATAGRAM, b"ping pong")
    return source


async def test_datagrams_go_both_ways_one_by_one(served: Served, udp_listener: socket.socket) -> None:
    source = await udp_opened(served, udp_listener)
    for size in (0, 1, 1400, 60_000):
        await served.ends.client.send(FrameType.DATAGRAM, bytes(size))
        assert len((await received(udp_listener))[0]) == size
        udp_listener.sendto(bytes(size), source)
        assert len((await served.answer()).content) == size


async def test_datagrams_of_strangers_are_not_delivered(served: Served, udp_listener: socket.socket) -> None:
    source = await udp_opened(served, udp_listener)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"forged", source)
    udp_listener.sendto(b"real", source)
    assert (await served.answer()).content == b"real"


async def test_a_closed_port_is_told(served: Served) -> None:
    await served.opened(Destination("127.0.0.1", closed_port(), TransportProtocol.UDP))
    await served.ends.client.send(FrameType.DATAGRAM, b"ping")
    frame = await served.answer()
    assert (frame.type, Failure.decode(frame.content).failure) == (FrameType.FAIL, FlowFailure.REFUSED)


async def test_a_cut_ends_an_association_at_once(served: Served, udp_listener: socket.socket) -> None:
    source = await udp_opened(served, udp_listener)
    assert len(served.cut()) == 1
    frame = await served.answer()
    assert Failure.decode(frame.content).failure is FlowFailure.SERVICE_KEY_REVOKED
    await served.over()
    assert [event.failure for event in await served.told() if event.event == "closed"] == ["service-key-revoked"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(source)  # its port is free: the socket is gone
    assert served.world.core.flows == 0


async def test_an_idle_association_ends(served: Served, udp_listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_flows, "DATAGRAM_IDLE_SECONDS", 0.3)
    await udp_opened(served, udp_listener)
    await served.over()
    assert served.world.core.flows == 0


async def test_a_port_that_is_not_granted(served: Served, udp_listener: socket.socket) -> None:
    narrow = resource(5, "127.0.0.1", udp=rule((53, 53)))
    served.world.core.present_grant(served.link, served.world.grant(served.link, narrow, stamp=(1, 11)), NOW)
    assert (await served.failed(where(udp_listener, TransportProtocol.UDP))).failure is FlowFailure.NOT_GRANTED


# ---- what a client may hold


async def test_a_frame_that_does_not_become_complete_ends_its_flow(
    served: Served, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_flows, "FRAME_SECONDS", 0.2)
    await served.opened(where(listener))
    remote = await accepted(listener)
    served.server.end_unfinished()
    assert served.world.core.flows == 1
    await asyncio.get_running_loop().sock_sendall(served.ends.client.sock, (200_000).to_bytes(4, "big") + bytes(100))
    async with asyncio.timeout(5):
        while served.world.core.flows:
            served.server.end_unfinished()
            await asyncio.sleep(0.02)
    await served.over()
    assert await is_reset(remote)
    assert [event.failure for event in await served.told() if event.event == "closed"] == ["timed-out"]
    remote.close()
