"""A machine that was copied: the session ends without another frame under its keys, and a new one begins."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from klinket.client import channel as client_channel
from klinket.client.client import Client
from klinket.net import copies
from klinket.net.pipe import SealedPipe
from klinket.net.uptime import boot, own_time, told_uptime_ms
from klinket.wire import control
from tests.eventually import PATIENCE, eventually
from tests.unit.net.test_net_forks import in_child, seals
from tests.unit.whole import Whole


def live_pipes(client: Client) -> list[SealedPipe]:
    controls = [link._control for link in client._links.values() if link._control is not None]
    return [*controls, *(flow._pipe for flow in client._flows)]


def an_hour_later() -> tuple[float, control.HeartbeatAnswer]:
    """Return an exchange with the controller as a machine sees it that stood still for an hour."""
    time_ms, uptime_ms = round((time.time() + 3600) * 1000), told_uptime_ms(own_time() + 3600)
    return own_time(), control.HeartbeatAnswer(sequence=1, time_ms=time_ms, uptime_ms=uptime_ms, boot=boot())


async def test_a_copied_client_ends_its_session_and_begins_a_new_one(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    assert client._session is not None
    before, pipes = client._session.id, live_pipes(client)
    assert len(pipes) >= 2
    client._copies.exchanged(*an_hour_later())
    assert not any(seals(pipe) for pipe in pipes)  # at once: nothing runs in between
    assert await flow.is_reset()
    await eventually(lambda: client._session is not None and client._session.id != before)
    await client.wait_ready((), PATIENCE)
    await (await whole.flow(client)).echo()
    assert client.end_reason is None
    async with asyncio.timeout(PATIENCE):
        while not [row for row in await whole.sessions() if row.id == before and row.ended_at_ms is not None]:
            await asyncio.sleep(0.01)


async def test_a_copied_connector_ends_all_links_and_flows_and_serves_again(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    links = set(whole.connector._core._links)
    assert links
    whole.connector._copies.exchanged(*an_hour_later())
    assert not whole.connector._core._links
    assert whole.connector._core.flows == 0
    assert await flow.is_reset()

    await eventually(lambda: any(whole.controller.peers.online().values()))
    await client.wait_ready((), PATIENCE)
    await (await whole.flow(client)).echo()
    assert not links & set(whole.connector._core._links)


@pytest.mark.parametrize("word", ["heartbeat", "challenge"])
async def test_the_controllers_next_word_shows_that_the_machine_stood_still(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    if word == "heartbeat":
        monkeypatch.setattr(control, "HEARTBEAT_SECONDS", 0.05)
    client = await whole.client()
    assert client._session is not None
    before = client._session.id
    true = own_time
    for module in (client_channel, copies):
        monkeypatch.setattr(module, "own_time", lambda: true() - 3600)
    if word == "challenge":
        client._channel.abort()
    await eventually(lambda: client._session is not None and client._session.id != before)


async def test_a_child_of_fork_has_no_session(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    connection = client._channel._connection
    assert connection is not None
    channel = connection.transport.get_extra_info("socket").fileno()

    def nothing_left() -> bool:
        try:
            os.fstat(channel)
        except OSError:
            return client._session is None and not client._links and isinstance(client.end_reason, Exception)
        return False

    assert in_child(nothing_left)
    await flow.echo()
    await (await whole.flow(client)).echo()
