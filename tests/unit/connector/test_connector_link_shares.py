"""What a client's connections may hold at a connector, and that nothing of a session outlives its end."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from klinket.connector import limits
from klinket.connector import links as connector_links
from klinket.connector.core import LinkRecord
from klinket.connector.events import FlowEventLog
from klinket.connector.flows import FlowServer
from klinket.connector.links import LinkServer
from klinket.connector.pipes import ProvenPipes
from klinket.connector.state import ConnectorState
from klinket.domain.cut import CutScope
from klinket.domain.errors import ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net.pipe import SealedPipe
from klinket.wire import link_control
from klinket.wire import pipe as wire
from klinket.wire.link import Link
from klinket.wire.link_control import GrantAccepted, GrantRefused, PresentGrant
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.pipe_messages import Failure
from tests.eventually import eventually
from tests.unit.connector.conftest import ACCOUNT, NOW, OTHER_ACCOUNT, World, principal, record, request, resource, tcp
from tests.unit.connector.test_connector_dial import closed_port
from tests.unit.net.conftest import tcp_pair

LOOPBACK = resource(5, "127.0.0.1")


@dataclass
class Served:
    """A link server, and clients that were joined with it."""

    world: World
    server: LinkServer
    flows: FlowServer
    pipes: ProvenPipes
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    ends: list[socket.socket] = field(default_factory=list)

    def joined(self) -> tuple[socket.socket, bytes]:
        """Join a client: its end, and the connector's random of the greeting."""
        ours, theirs = tcp_pair()
        random = os.urandom(32)
        self.ends.append(ours)
        self.tasks.append(asyncio.ensure_future(self.server.serve(theirs, random, 1)))
        return ours, random

    def pipe(self, link: Link, purpose: Purpose) -> SealedPipe:
        sock, connector_random = self.joined()
        client_random = os.urandom(32)
        keys = wire.client_keys(link, purpose, client_random, connector_random)
        return SealedPipe(sock, keys, purpose, wire.hello(purpose, link.handle, client_random))

    async def control(self, link: LinkRecord, *, revision: int = 10) -> SealedPipe:
        """Open a control pipe, and present a grant of loopback on it."""
        pipe = self.pipe(link.link, Purpose.CONTROL)
        await self.present(pipe, link, revision)
        assert isinstance(await answer(pipe), GrantAccepted)
        return pipe

    async def present(self, pipe: SealedPipe, link: LinkRecord, revision: int = 10) -> None:
        for message in link_control.present(self.world.grant(link, LOOPBACK, stamp=(1, revision))):
            await pipe.send(FrameType.CONTROL, link_control.encode(message))

    async def resting(self, link: LinkRecord) -> SealedPipe | None:
        """Open a pipe that has carried a flow and waits for the next; None when it was not taken."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            pipe = self.pipe(link.link, Purpose.FLOW)
            await pipe.send(FrameType.OPEN, request(tcp("127.0.0.1", server.getsockname()[1])).encode())
            try:
                async with asyncio.timeout(5):
                    if (await pipe.receive()).type is not FrameType.OPENED:
                        return None
                    server.accept()[0].close()
                    await pipe.send(FrameType.FIN)
                    await pipe.receive()
            except ConnectionError:
                return None
        return pipe


async def answer(pipe: SealedPipe) -> GrantAccepted | GrantRefused:
    async with asyncio.timeout(5):
        message = link_control.decode_from_connector((await pipe.receive()).content)
    assert isinstance(message, GrantAccepted | GrantRefused)
    return message


async def over(pipe: SealedPipe) -> bool:
    """Return whether the connector ends a pipe."""
    try:
        async with asyncio.timeout(3):
            while True:
                await pipe.receive()
    except ConnectionError:
        return True
    except TimeoutError:
        return False


@pytest.fixture
async def served(world: World, tmp_path: Path) -> AsyncIterator[Served]:
    pipes = ProvenPipes(8)
    flows = FlowServer(world.core, FlowEventLog(ConnectorState(tmp_path), lambda: NOW), lambda: NOW, set, pipes)
    made = Served(world, LinkServer(world.core, flows, lambda: NOW, lambda: None, pipes), flows, pipes)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    for sock in made.ends:
        sock.close()


def linked(world: World, letter: str = "a", **who: object) -> LinkRecord:
    link = record(principal(session=letter * 22, **who))  # type: ignore[arg-type]
    world.core.add_link(link, NOW)
    return link


# ---- control pipes


async def test_a_link_has_one_control_pipe_and_the_newer_counts(served: Served) -> None:
    link = linked(served.world)
    older = await served.control(link)
    newer = await served.control(link, revision=11)
    assert await over(older)
    await served.present(newer, link, 12)
    assert isinstance(await answer(newer), GrantAccepted)
    assert len(served.pipes) == 1


async def test_a_silent_control_pipe_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_links, "CONTROL_IDLE_SECONDS", 0.2)
    assert await over(await served.control(linked(served.world)))
    await eventually(lambda: len(served.pipes) == 0)


async def test_a_control_pipe_with_half_a_frame_ends_and_a_quiet_one_stays(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_links, "FRAME_SECONDS", 0.2)
    held, quiet = await served.control(linked(served.world)), await served.control(linked(served.world, "b"))
    await asyncio.get_running_loop().sock_sendall(held.sock, (200_000).to_bytes(4, "big") + bytes(100))
    async with asyncio.timeout(5):
        while len(served.pipes) > 1:
            served.server.end_unfinished()
            await asyncio.sleep(0.02)
    assert await over(held)
    await quiet.send(FrameType.CONTROL, link_control.encode(link_control.CloseLink()))
    await eventually(lambda: len(served.pipes) == 0)


async def test_half_a_grant_is_not_waited_for(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_links, "FRAME_SECONDS", 0.2)
    pipe = await served.control(linked(served.world))
    await pipe.send(FrameType.CONTROL, link_control.encode(PresentGrant(token="x" * 1000, part=0, parts=2)))
    assert await over(pipe)


# ---- shares


async def test_one_account_does_not_take_all_pipes(served: Served) -> None:
    links = [linked(served.world, letter) for letter in "abcdefgh"]
    kept = []
    for link in links:
        pipe = served.pipe(link.link, Purpose.CONTROL)
        await served.present(pipe, link)
        try:
            kept.append((pipe, await answer(pipe)))
        except ConnectionError:
            pass
    assert len(kept) == 4  # half of eight
    assert await served.control(linked(served.world, "z", account=OTHER_ACCOUNT))


async def test_a_session_keeps_few_pipes_at_rest(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_RESTING_PIPES_PER_SESSION", 1)
    link = linked(served.world)
    await served.control(link)
    first, second = await served.resting(link), await served.resting(link)
    assert first is not None
    assert second is not None
    assert await over(second)
    await first.send(FrameType.OPEN, request(tcp("127.0.0.1", closed_port())).encode())
    assert Failure.decode((await first.receive()).content).failure is FlowFailure.REFUSED


async def test_a_handle_that_was_overheard_counts_for_nobody(served: Served) -> None:
    link = linked(served.world)
    sock, _ = served.joined()
    forged = wire.hello(Purpose.CONTROL, link.link.handle, os.urandom(32)) + (100).to_bytes(4, "big") + os.urandom(100)
    await asyncio.get_running_loop().sock_sendall(sock, forged)
    await asyncio.wait(served.tasks, timeout=5)
    assert served.tasks[0].done()
    assert len(served.pipes) == 0


async def test_whoever_has_proved_nothing_gives_way_and_who_has_stays(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_links, "MAX_UNPROVEN", 3)
    link = linked(served.world)
    proven = await served.control(link)
    for _ in range(5):
        served.joined()
        await asyncio.sleep(0)
    await eventually(lambda: sum(not task.done() for task in served.tasks) == 4)
    assert [task.done() for task in served.tasks] == [False, True, True, False, False, False]
    await served.present(proven, link, 11)
    assert isinstance(await answer(proven), GrantAccepted)


# ---- the end


@pytest.mark.parametrize("scope", [CutScope.of_account(ACCOUNT), CutScope.of_key(principal().key)], ids=str)
async def test_a_cut_ends_control_pipes_and_pipes_at_rest(served: Served, scope: CutScope) -> None:
    link, stranger = linked(served.world), linked(served.world, "z", account=OTHER_ACCOUNT, key="key-9")
    control, others = await served.control(link), await served.control(stranger)
    resting = await served.resting(link)
    assert resting is not None
    await eventually(lambda: len(served.pipes) == 3)
    cut = served.world.cut(scope, reason=FlowFailure.SERVICE_KEY_REVOKED)
    served.flows.end(served.world.core.apply_cut(cut, NOW), time.monotonic())
    served.server.end_over(cut.scope.holds)
    assert await over(control)
    assert await over(resting)
    await eventually(lambda: len(served.pipes) == 1)
    late = served.pipe(link.link, Purpose.CONTROL)
    await served.present(late, link, 99)
    assert await over(late)
    await served.present(others, stranger, 11)
    assert isinstance(await answer(others), GrantAccepted)


def test_a_part_of_a_grant_has_its_limit() -> None:
    with pytest.raises(ProtocolError, match="above"):
        link_control.GrantParts().add(PresentGrant(token="x" * (link_control.PART_CHARS + 1), part=0, parts=1))
