"""What comes in on a rendezvous connection: a link, its grants, pipes for flows, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from klinket.connector import limits
from klinket.connector import links as connector_links
from klinket.connector.events import FlowEventLog
from klinket.connector.flows import FlowServer
from klinket.connector.links import LinkServer
from klinket.connector.state import ConnectorState
from klinket.domain.flow import FlowFailure
from klinket.domain.token_buckets import TokenBuckets
from klinket.net import pipe as pipes
from klinket.net.link import LinkInitiator, LinkTerminator
from klinket.net.pipe import SealedPipe
from klinket.wire import link_control, signing
from klinket.wire.identity import ClientIdentity
from klinket.wire.link import Link
from klinket.wire.link_control import CloseLink, Drain, GrantAccepted, GrantRefused, Ping, Pong
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.pipe_messages import Failure
from tests.eventually import PATIENCE
from tests.unit.connector.conftest import DATABASE, NETWORK, World, principal, record, request, resource, tcp
from tests.unit.net import test_net_link
from tests.unit.net.conftest import tcp_pair
from tests.unit.net.test_net_link import CLIENTS, CONNECTOR, CONNECTOR_JKT, certified, initiator, terminator

#: Certificates are judged by the machine's clock, the core by this one.
NOW = test_net_link.NOW


@dataclass
class Connector:
    """A link server with the core of its world."""

    world: World
    server: LinkServer
    terminator: list[LinkTerminator]
    serving: list[asyncio.Task[None]] = field(default_factory=list)
    open_sockets: list[socket.socket] = field(default_factory=list)

    async def joined(self) -> socket.socket:
        """Return the client's end of a connection the relay has joined."""
        client, mine = tcp_pair()
        self.open_sockets += [client, mine]
        random = await pipes.greet(mine, os.urandom)
        self.serving.append(asyncio.ensure_future(self.server.serve(mine, random, 7)))
        return client

    async def link(self, client: LinkInitiator) -> Link:
        return await client.offer(await self.joined(), CONNECTOR, CONNECTOR_JKT, now=NOW, entropy=os.urandom)

    async def pipe(self, link: Link, purpose: Purpose) -> SealedPipe:
        return await pipes.open_pipe(await self.joined(), link, purpose, os.urandom)

    async def over(self) -> None:
        """Wait until everything that was served has ended."""
        async with asyncio.timeout(5):
            await asyncio.gather(*self.serving)


@pytest.fixture
async def connector(world: World, tmp_path: Path) -> AsyncIterator[Connector]:
    flows = FlowServer(world.core, FlowEventLog(ConnectorState(tmp_path), lambda: NOW), lambda: NOW, set)
    found = [terminator(network=NETWORK)]
    made = Connector(world, LinkServer(world.core, flows, lambda: NOW, lambda: found[0] if found else None), found)
    yield made
    for task in made.serving:
        task.cancel()
    await asyncio.gather(*made.serving, return_exceptions=True)
    for sock in made.open_sockets:
        sock.close()


async def control(pipe: SealedPipe, message: link_control.LinkMessage) -> link_control.FromConnector:
    """Send a control message; return the answer."""
    await pipe.send(FrameType.CONTROL, link_control.encode(message))
    async with asyncio.timeout(5):
        return link_control.decode_from_connector((await pipe.receive()).content)


async def ends(pipe: SealedPipe) -> bool:
    """Return whether the pipe ends without a further frame."""
    try:
        async with asyncio.timeout(5):
            await pipe.receive()
    except OSError:
        return True
    return False


async def test_a_link_a_grant_and_a_flow(connector: Connector) -> None:
    client = certified(CLIENTS, ClientIdentity(NETWORK, principal()).uri)
    link = await connector.link(initiator(client))
    told = record(jkt=signing.thumbprint(client.key.public_key()))
    control_pipe = await connector.pipe(link, Purpose.CONTROL)
    token = connector.world.grant(told, DATABASE, now=NOW)
    (message,) = link_control.present(token)
    answer = await control(control_pipe, message)
    assert isinstance(answer, GrantAccepted)
    flow = await connector.pipe(link, Purpose.FLOW)
    await flow.send(FrameType.OPEN, request(tcp("db.internal", 1)).encode())
    failure = Failure.decode((await flow.receive()).content)
    assert failure.failure is FlowFailure.NOT_GRANTED, "the grant was judged: port 1 is not in it"


async def test_a_grant_of_another_session_is_refused_and_the_link_lives_on(connector: Connector) -> None:
    link = await connector.link(initiator(certified(CLIENTS, ClientIdentity(NETWORK, principal()).uri)))
    pipe = await connector.pipe(link, Purpose.CONTROL)
    for other in (record(principal(session="b" * 22)), record(jkt="another key")):
        (message,) = link_control.present(connector.world.grant(other, DATABASE, now=NOW))
        assert isinstance(await control(pipe, message), GrantRefused)


@pytest.mark.parametrize("frame", [(FrameType.DATA, b"bytes"), (FrameType.CONTROL, b"{}"), (FrameType.CONTROL, b"\xff")])
async def test_a_control_pipe_takes_control_messages_only(connector: Connector, frame: tuple[FrameType, bytes]) -> None:
    pipe = await connector.pipe(await connector.link(initiator()), Purpose.CONTROL)
    await pipe.send(*frame)
    assert await ends(pipe)
    await connector.over()


async def test_a_link_that_was_closed_opens_no_pipe(connector: Connector) -> None:
    link = await connector.link(initiator())
    pipe = await connector.pipe(link, Purpose.CONTROL)
    await pipe.send(FrameType.CONTROL, link_control.encode(CloseLink()))
    assert await ends(pipe)
    assert connector.world.core.link(link.handle, NOW) is None
    late = await connector.pipe(link, Purpose.FLOW)
    await late.send(FrameType.OPEN, request(tcp("db.internal", 5432)).encode())
    assert await ends(late)


@pytest.mark.parametrize("how", ["its time", "closed"])
async def test_a_pipe_at_rest_opens_no_flow_after_the_end_of_its_link(world: World, tmp_path: Path, how: str) -> None:
    now = [NOW]
    flows = FlowServer(world.core, FlowEventLog(ConnectorState(tmp_path), lambda: now[0]), lambda: now[0], set)
    made = terminator(network=NETWORK)
    connector = Connector(world, LinkServer(world.core, flows, lambda: now[0], lambda: made), [made])
    client = certified(CLIENTS, ClientIdentity(NETWORK, principal()).uri)
    link = await connector.link(initiator(client))
    found = world.core.link(link.handle, NOW)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        where = tcp("127.0.0.1", listener.getsockname()[1])
        world.core.present_grant(found, world.grant(found, resource(5, "127.0.0.1"), now=NOW), NOW)
        flow = await connector.pipe(link, Purpose.FLOW)
        await flow.send(FrameType.OPEN, request(where).encode())
        assert (await flow.receive()).type is FrameType.OPENED
        await flow.send(FrameType.FIN)
        listener.accept()[0].close()
        assert (await flow.receive()).type is FrameType.FIN
        if how == "closed":
            await control_over(connector, link)
        else:
            now[0] = link.expires_at
            # Grants are the session's: its client goes on to present them on the link that has replaced this one.
            world.core.present_grant(found, world.grant(found, resource(5, "127.0.0.1"), now=now[0], stamp=(1, 11)), now[0])
        await flow.send(FrameType.OPEN, request(where).encode())
        assert await ends(flow)
    for sock in connector.open_sockets:
        sock.close()


@pytest.mark.parametrize("how", ["it waits", "it says something"])
async def test_a_control_pipe_ends_with_its_link(world: World, tmp_path: Path, how: str) -> None:
    now = [NOW]
    flows = FlowServer(world.core, FlowEventLog(ConnectorState(tmp_path), lambda: now[0]), lambda: now[0], set)
    made = terminator(network=NETWORK)
    connector = Connector(world, LinkServer(world.core, flows, lambda: now[0], lambda: made), [made])
    link = await connector.link(initiator())
    pipe = await connector.pipe(link, Purpose.CONTROL)

    async def answered() -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                await pipe.send(FrameType.CONTROL, link_control.encode(Ping()))
                return isinstance(link_control.decode_from_connector((await pipe.receive()).content), Pong)
        except ConnectionError:
            return False

    now[0] = link.expires_at - 1
    connector.server.end_unfinished()
    assert await answered()
    now[0] = link.expires_at
    if how == "it waits":
        connector.server.end_unfinished()
    assert not await answered()
    await connector.over()
    for sock in connector.open_sockets:
        sock.close()


async def control_over(connector: Connector, link: Link) -> None:
    pipe = await connector.pipe(link, Purpose.CONTROL)
    await pipe.send(FrameType.CONTROL, link_control.encode(CloseLink()))
    assert await ends(pipe)


async def test_a_pipe_of_a_link_nobody_made_is_refused(connector: Connector) -> None:
    pipe = await connector.pipe(Link(os.urandom(16), os.urandom(32), NOW + 60), Purpose.FLOW)
    await pipe.send(FrameType.OPEN, request(tcp("db.internal", 5432)).encode())
    assert await ends(pipe)
    await connector.over()


async def test_a_right_handle_without_the_secret_is_refused(connector: Connector) -> None:
    link = await connector.link(initiator())
    pipe = await connector.pipe(Link(link.handle, os.urandom(32), link.expires_at), Purpose.FLOW)
    await pipe.send(FrameType.OPEN, request(tcp("db.internal", 5432)).encode())
    assert await ends(pipe)
    assert connector.world.core.link(link.handle, NOW) is not None, "and the link of the one who has it lives on"


async def test_pipe_bytes_that_were_recorded_open_nothing_again(connector: Connector) -> None:
    # Each connection has a random of the connector's: what was sealed for one is noise on any other.
    link = await connector.link(initiator())
    pipe = await connector.pipe(link, Purpose.FLOW)
    sealed = pipe._prefix + pipe.sealer.seal(FrameType.OPEN, request(tcp("db.internal", 5432)).encode())
    again = await connector.joined()
    await asyncio.get_running_loop().sock_sendall(again, sealed)
    rest = b""
    async with asyncio.timeout(5):
        try:
            while more := await asyncio.get_running_loop().sock_recv(again, 4096):
                rest += more
        except ConnectionResetError:
            pass
    assert len(rest) <= 64, "the greeting at the most, no answer"
    assert connector.world.core.flows == 0


async def test_no_link_before_the_first_configuration(connector: Connector) -> None:
    connector.terminator.clear()
    with pytest.raises(OSError):
        await connector.link(initiator())
    await connector.over()


async def test_links_are_bounded(connector: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LINKS_PER_SESSION", 2)
    for _ in range(3):
        await asyncio.gather(connector.link(initiator()), return_exceptions=True)
    await connector.over()
    assert len(connector.world.core._links) == 2


async def test_a_client_that_says_nothing_is_not_waited_for(connector: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_links, "HELLO_SECONDS", 0.1)
    sock = await connector.joined()
    await connector.over()
    assert len(await asyncio.get_running_loop().sock_recv(sock, 4096)) > 0  # the greeting
    assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def test_others_have_their_turns_between_control_messages_that_come_at_once(connector: Connector) -> None:
    link = await connector.link(initiator())
    pipe = await connector.pipe(link, Purpose.CONTROL)
    assert isinstance(await control(pipe, Ping()), Pong)
    ping = link_control.encode(Ping())
    pipe.sock.sendall(b"".join(pipe.sealer.seal(FrameType.CONTROL, ping) for _ in range(200)))
    answered, turns = 0, 0
    async with asyncio.timeout(10):
        while answered < 200:
            await asyncio.sleep(0)
            turns += 1
            while pipe.receiver.open() is not None:
                answered += 1
            try:
                pipe.receiver.received(pipe.sock.recv_into(pipe.receiver.space()))
            except BlockingIOError:
                pass
    assert turns > 100


async def test_control_messages_above_the_rate_wait_by_their_size(connector: Connector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector.server, "_rates", TokenBuckets(4, 1.0))
    link = await connector.link(initiator())
    pipe = await connector.pipe(link, Purpose.CONTROL)
    other = await connector.pipe(await connector.link(other_session()), Purpose.CONTROL)
    for _ in range(3):
        assert isinstance(await control(pipe, Ping()), Pong)
    big = link_control.PresentGrant(token="x" * limits.CONTROL_UNIT_BYTES)
    assert isinstance(await control(pipe, big), GrantRefused)
    await pipe.send(FrameType.CONTROL, link_control.encode(Ping()))
    waiting = asyncio.ensure_future(pipe.receive())
    assert isinstance(await control(other, Ping()), Pong)  # another session's have their own rate
    assert not waiting.done()
    async with asyncio.timeout(10):
        assert isinstance(link_control.decode_from_connector((await waiting).content), Pong)


def other_session() -> LinkInitiator:
    return initiator(certified(CLIENTS, ClientIdentity(NETWORK, principal(session="b" * 22)).uri))


async def test_draining_is_told_on_every_control_pipe(connector: Connector) -> None:
    told = []
    for _ in range(2):
        pipe = await connector.pipe(await connector.link(initiator()), Purpose.CONTROL)
        (message,) = link_control.present(connector.world.grant(record(), DATABASE, now=NOW))
        await control(pipe, message)  # it is known there now
        told.append(pipe)
    connector.server.drain()
    for pipe in told:
        async with asyncio.timeout(5):
            assert isinstance(link_control.decode_from_connector((await pipe.receive()).content), Drain)
