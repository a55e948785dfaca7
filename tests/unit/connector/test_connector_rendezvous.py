"""Connections that wait at a real relay: as many as wanted, made again, and none left when it ends."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from klinket.connector import rendezvous
from klinket.connector.events import FlowEventLog
from klinket.connector.flows import FlowServer
from klinket.connector.limits import MIN_IDLE
from klinket.connector.links import LinkServer
from klinket.connector.rendezvous import RelayPresence
from klinket.connector.state import ConnectorState
from klinket.net import pipe as pipes
from klinket.wire.ticket import TicketRole
from tests.eventually import eventually
from tests.unit.connector.conftest import World
from tests.unit.connector.test_connector_dial import descriptors
from tests.unit.relay.conftest import ticket
from tests.unit.relay.test_relay_server import Running, StartRelay, start_relay, state

__all__ = ["start_relay", "state"]  # fixtures


@pytest.fixture
async def running(start_relay: StartRelay) -> Running:
    return await start_relay()


def presence_at(running: Running, world: World, folder: Path) -> RelayPresence:
    flows = FlowServer(world.core, FlowEventLog(ConnectorState(folder), time.time), time.time, set)
    links = LinkServer(world.core, flows, time.time, lambda: None)
    signed = ticket(TicketRole.CONNECTOR, (7,), holder="connector:7", now=time.time(), lifetime=3600)
    return RelayPresence(7, running.entry, signed, links, time.time)


@pytest.fixture
async def presence(running: Running, world: World, tmp_path: Path) -> AsyncIterator[RelayPresence]:
    made = presence_at(running, world, tmp_path)
    yield made
    await made.aclose()


async def test_some_connections_wait_and_one_that_was_taken_is_replaced(running: Running, presence: RelayPresence) -> None:
    presence.start()
    await eventually(lambda: running.core.waiting == MIN_IDLE)
    assert presence.attached
    client = await running.path().connect(7)
    running.open_sockets.append(client)
    await eventually(lambda: running.core.waiting >= MIN_IDLE)


async def test_a_relay_that_comes_back_is_waited_at_again(running: Running, presence: RelayPresence) -> None:
    presence.start()
    await eventually(lambda: running.core.waiting == MIN_IDLE)
    former = set(running.server._waiting.values())
    for sock in former:
        sock.shutdown(socket.SHUT_RDWR)
    await eventually(lambda: running.core.waiting == MIN_IDLE and not former & set(running.server._waiting.values()))


async def test_nothing_waits_any_more_after_the_end(running: Running, presence: RelayPresence) -> None:
    before = descriptors()
    presence.start()
    await eventually(lambda: running.core.waiting == MIN_IDLE)
    presence.stop_waiting()
    await eventually(lambda: running.core.waiting == 0)
    await presence.aclose()
    await eventually(lambda: descriptors() <= before)


@pytest.mark.parametrize("end", ["fails", "cancelled"])
async def test_a_connection_whose_greeting_does_not_go_out_is_closed(
    running: Running, presence: RelayPresence, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    await presence._path._admitted()
    begun = asyncio.Event()
    real = pipes.greet

    async def greet(sock: socket.socket, entropy: object) -> bytes:
        begun.set()
        if end == "fails":
            raise ConnectionResetError("the relay went away")
        await asyncio.Event().wait()
        return await real(sock, os.urandom)

    monkeypatch.setattr(pipes, "greet", greet)
    before = descriptors()
    registering = asyncio.ensure_future(presence._register())
    async with asyncio.timeout(5):
        await begun.wait()
    registering.cancel()
    await asyncio.gather(registering, return_exceptions=True)
    await eventually(lambda: running.core.waiting == 0 and descriptors() <= before)


async def test_a_wait_that_is_cancelled_before_its_first_step_leaves_no_socket(
    running: Running, presence: RelayPresence, monkeypatch: pytest.MonkeyPatch
) -> None:
    await presence._path._admitted()
    before = descriptors()
    start = presence._tasks.start
    cancelled: list[asyncio.Task[object]] = []

    def stillborn(work: object, name: str) -> asyncio.Task[object]:
        task = start(work, name)  # type: ignore[arg-type]
        if name == "wait for a client":
            task.cancel()
            cancelled.append(task)
        return task

    monkeypatch.setattr(presence._tasks, "start", stillborn)
    monkeypatch.setattr(rendezvous, "MIN_IDLE", 1)
    keeping = asyncio.ensure_future(presence._keep())
    await eventually(lambda: cancelled)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await eventually(lambda: descriptors() <= before)
    assert presence._idle == {}
