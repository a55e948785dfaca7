"""A client's flows on real pipes: however one ends, the program learns it, and nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import uvloop

from klinket.client.core import ClientCore
from klinket.client.flow import ClientDatagrams, ClientStream
from klinket.client.link import ConnectorLink
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.net.pipe import SealedPipe
from klinket.wire.inventory import ConnectorEntry
from klinket.wire.link import Link
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure
from tests.unit.client.conftest import granted
from tests.unit.net.conftest import Ends, pipe_ends, tcp_pair

CUT = Failure(FlowFailure.CUT, "the key was revoked")


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


@dataclass
class Opened:
    """A flow that a connector has opened: its stream, both ends of its pipe, the program's connection."""

    ends: Ends
    link: ConnectorLink
    program: socket.socket
    local: socket.socket
    flows: set[ClientStream | ClientDatagrams] = field(default_factory=set)

    def stream(self) -> ClientStream:
        made = ClientStream(granted(1, "db.internal"), self.ends.client, self.link, self.flows.discard)
        self.flows.add(made)
        return made

    def datagrams(self) -> ClientDatagrams:
        made = ClientDatagrams(granted(1, "db.internal"), self.ends.client, self.link, self.flows.discard)
        self.flows.add(made)
        return made


def link() -> ConnectorLink:
    """Return a link that keeps pipes, without a connector behind it."""
    entry = ConnectorEntry(id=7, name="office-1", remote_network=1)
    made = ConnectorLink(entry, (), Link(os.urandom(16), os.urandom(32), 4e9), ClientCore(), lambda: 0.0)
    made.usable = True
    return made


@pytest.fixture
def opened() -> Iterator[Opened]:
    program, local = tcp_pair()
    made = Opened(pipe_ends(), link(), program, local)
    yield made
    for sock in (program, local):
        sock.close()
    made.ends.client.abort()
    made.ends.connector.abort()


async def is_reset(sock: socket.socket) -> bool:
    try:
        async with asyncio.timeout(5):
            while await asyncio.get_running_loop().sock_recv(sock, 65_536):
                pass
    except ConnectionResetError:
        return True
    return False


async def pipe_is_over(pipe: SealedPipe) -> bool:
    """Return whether the peer of a pipe sees it end as no clean end."""
    try:
        async with asyncio.timeout(5):
            while (await pipe.receive()).type in (FrameType.DATA, FrameType.FAIL):
                pass
    except ConnectionError:
        return True
    return False


async def test_a_cancelled_flow_is_reset_on_both_sides(opened: Opened) -> None:
    carrying = asyncio.ensure_future(opened.stream().carry(opened.local))
    await asyncio.get_running_loop().sock_sendall(opened.program, b"x")
    assert (await opened.ends.connector.receive()).content == b"x"
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    assert await is_reset(opened.program)
    assert await pipe_is_over(opened.ends.connector)
    assert not opened.flows
    assert opened.local.fileno() == -1


@pytest.mark.parametrize("early", [b"", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_flow_cut_after_it_was_opened_and_before_it_is_carried_resets_the_program(opened: Opened, early: bytes) -> None:
    stream = opened.stream()
    stream.cut(CUT)
    async with asyncio.timeout(5):
        await stream.carry(opened.local, early)
    assert await is_reset(opened.program)
    assert await pipe_is_over(opened.ends.connector)
    assert stream.failure == CUT, "the reason is kept"
    assert not opened.flows


@pytest.mark.parametrize("how", ["cut", "cancel"])
async def test_an_end_while_early_bytes_are_being_sent_resets_the_program(opened: Opened, how: str) -> None:
    stream = opened.stream()
    carrying = asyncio.ensure_future(stream.carry(opened.local, bytes(64 << 20)))  # the connector reads nothing: it blocks
    await asyncio.sleep(0.2)
    assert not carrying.done()
    if how == "cut":
        stream.cut(CUT)
    else:
        carrying.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([carrying])
    assert carrying.cancelled() == (how == "cancel")
    assert await is_reset(opened.program)
    assert opened.ends.client.closed
    assert stream.failure == (CUT if how == "cut" else Failure(FlowFailure.RESET))
    assert not opened.flows


async def test_a_cut_of_a_carried_flow_is_its_failure(opened: Opened) -> None:
    stream = opened.stream()
    carrying = asyncio.ensure_future(stream.carry(opened.local))
    await asyncio.sleep(0)
    stream.cut(CUT)
    await carrying
    assert stream.failure == CUT
    assert await is_reset(opened.program)
    assert not opened.flows


async def test_a_clean_end_gives_the_pipe_back_for_the_next_flow(opened: Opened) -> None:
    loop = asyncio.get_running_loop()
    stream = opened.stream()
    carrying = asyncio.ensure_future(stream.carry(opened.local, b"early "))
    assert (await opened.ends.connector.receive()).content == b"early "
    await loop.sock_sendall(opened.program, b"late")
    opened.program.shutdown(socket.SHUT_WR)
    assert (await opened.ends.connector.receive()).content == b"late"
    assert (await opened.ends.connector.receive()).type is FrameType.FIN
    await opened.ends.connector.send(FrameType.DATA, b"answer")
    await opened.ends.connector.send(FrameType.FIN)
    assert await loop.sock_recv(opened.program, 100) == b"answer"
    assert await loop.sock_recv(opened.program, 100) == b""
    await carrying
    assert stream.failure is None
    assert not opened.flows
    assert await opened.link.pipe() is opened.ends.client


async def test_a_flow_that_was_begun_goes_on_by_itself_and_its_end_is_told_once(opened: Opened) -> None:
    over: list[ClientStream] = []
    stream = opened.stream()
    await stream.begin(opened.local, b"early ", over.append)
    assert (await opened.ends.connector.receive()).content == b"early "
    await asyncio.get_running_loop().sock_sendall(opened.program, b"late")
    assert (await opened.ends.connector.receive()).content == b"late"
    assert over == []
    stream.abort()
    assert await is_reset(opened.program)
    assert await pipe_is_over(opened.ends.connector)
    assert over == [stream]
    assert stream.failure == Failure(FlowFailure.RESET)
    assert not opened.flows


async def test_a_flow_given_up_before_it_is_carried_resets_the_pipe(opened: Opened) -> None:
    opened.stream().abort()
    assert await pipe_is_over(opened.ends.connector)
    assert not opened.flows


async def test_a_broken_pipe_is_a_reset_never_given_back(opened: Opened) -> None:
    stream = opened.stream()
    carrying = asyncio.ensure_future(stream.carry(opened.local))
    await asyncio.sleep(0)
    opened.ends.connector.abort()
    await carrying
    assert stream.failure is not None
    assert await is_reset(opened.program)
    assert opened.ends.client.closed


# ---- UDP


async def test_datagrams_keep_their_bounds(opened: Opened) -> None:
    datagrams = opened.datagrams()
    for content in (b"one", b"", b"three"):
        await datagrams.send(content)
        assert (await opened.ends.connector.receive()).content == content
        await opened.ends.connector.send(FrameType.DATAGRAM, content)
        assert await datagrams.receive() == content


@pytest.mark.parametrize(
    ("frame", "content", "failure"),
    [
        (FrameType.FAIL, Failure(FlowFailure.REFUSED, "the port is closed").encode(), FlowFailure.REFUSED),
        (FrameType.DATA, b"bytes of a stream", FlowFailure.RESET),
        (FrameType.FIN, b"", FlowFailure.RESET),
    ],
)
async def test_what_ends_an_association_is_told(opened: Opened, frame: FrameType, content: bytes, failure: FlowFailure) -> None:
    datagrams = opened.datagrams()
    await opened.ends.connector.send(frame, content)
    with pytest.raises(FlowRefused) as caught:
        await datagrams.receive()
    assert caught.value.failure is failure


async def test_a_cut_ends_the_wait_for_a_datagram(opened: Opened) -> None:
    datagrams = opened.datagrams()
    receiving = asyncio.ensure_future(datagrams.receive())
    await asyncio.sleep(0.01)
    datagrams.cut(CUT)
    async with asyncio.timeout(5):
        with pytest.raises(FlowRefused):
            await receiving
    with pytest.raises(FlowRefused):
        await datagrams.send(b"more")
    assert not opened.flows
