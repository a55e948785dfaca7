"""Which way a link takes: directly where the connector listens and is met, else through a relay; the better one once it can."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from examples.deployment import free_port
from klinket.client.client import Client
from klinket.client.link import ConnectorLink
from klinket.domain.errors import FlowRefused
from klinket.net.sockets import HostPort
from tests.eventually import eventually
from tests.unit.whole import Whole, everything

Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start everything; the connector listens at `listen` and says it is at `advertised`."""
    async with AsyncExitStack() as stack:

        async def begin(listen: int | None = None, *advertised: int) -> Whole:
            settings: dict[str, Any] = {"advertised": tuple(HostPort("127.0.0.1", port) for port in advertised)}
            if listen is not None:
                settings["listen"] = HostPort("127.0.0.1", listen)
            return await stack.enter_async_context(everything(tmp_path, **settings))

        yield begin


def link_of(client: Client) -> ConnectorLink:
    (found,) = client._links.values()
    return found


async def path_of_the_last_flow(whole: Whole) -> str:
    """Return how the last flow went, as the traffic log has it."""
    rows: list[Any] = []

    async def look() -> None:
        nonlocal rows
        async with asyncio.timeout(15):
            while not rows:
                rows = await whole.controller.read(lambda tx: tx.flow_events.newest(1, kind="established"))
                await asyncio.sleep(0.05)

    await look()
    return str(rows[0].event["connection"]["tunnel_path"])


async def test_a_connector_that_listens_is_met_without_a_relay(start: Start) -> None:
    whole = await start(free_port())
    client = await whole.client()
    await (await whole.flow(client)).echo()
    assert link_of(client).direct
    assert link_of(client).relays == []
    assert await path_of_the_last_flow(whole) == "direct"


async def test_a_connector_that_does_not_listen_is_met_at_a_relay(start: Start) -> None:
    whole = await start()
    client = await whole.client()
    await (await whole.flow(client)).echo()
    assert not link_of(client).direct
    assert await path_of_the_last_flow(whole) == "relayed"


async def test_where_nobody_is_at_the_address_the_relay_serves(start: Start) -> None:
    whole = await start(free_port(), free_port())
    client = await whole.client()
    await (await whole.flow(client)).echo()
    assert not link_of(client).direct


async def test_whoever_else_is_at_the_address_gets_nothing_and_the_relay_serves(start: Start) -> None:
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.setblocking(False)

        async def answer() -> None:
            while True:
                sock, _ = await asyncio.get_running_loop().sock_accept(stranger)
                with sock:
                    await asyncio.get_running_loop().sock_sendall(sock, b"220 mail.example ESMTP ready, and some more words\r\n")
                    got.append(await asyncio.get_running_loop().sock_recv(sock, 4096))

        answering = asyncio.ensure_future(answer())
        whole = await start(free_port(), stranger.getsockname()[1])
        client = await whole.client()
        await (await whole.flow(client)).echo()
        answering.cancel()
    assert not link_of(client).direct
    assert got, "the stranger was never asked"
    assert all(b"127.0.0.1" not in data and whole.key_file.key_id.encode() not in data for data in got)


async def test_an_address_that_swallows_everything_delays_nobody_for_long(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        whole = await start(free_port(), silent.getsockname()[1])
        client = await whole.client()
        async with asyncio.timeout(5):
            await (await whole.flow(client)).echo()
        assert not link_of(client).direct


async def test_new_flows_move_to_the_direct_way_and_old_ones_stay(start: Start) -> None:
    port = free_port()
    whole = await start(port, port)
    client = await whole.client()
    assert link_of(client).direct
    configuration = client._core.configuration
    (connector,) = configuration.connectors
    # As long as the controller does not name the address the relay is all there is.
    client._core.configure(msgspec.structs.replace(configuration, connectors=[msgspec.structs.replace(connector, direct=[])]))
    await client._links.pop(connector.id).aclose()
    old = await whole.flow(client)
    assert not link_of(client).direct
    client._core.configure(configuration)
    await (await whole.flow(client)).echo()
    await eventually(lambda: link_of(client).direct)
    await (await whole.flow(client)).echo()
    await old.echo()


async def test_when_the_direct_way_breaks_the_relay_takes_over(start: Start) -> None:
    whole = await start(free_port())
    client = await whole.client()
    flow = await whole.flow(client)
    whole.connector._listener.stop_accepting()
    await whole.connector._listener._tasks.aclose()
    assert await flow.is_reset()
    await (await whole.flow(client)).echo()
    assert not link_of(client).direct


async def test_without_any_relay_the_direct_way_serves(start: Start) -> None:
    whole = await start(free_port())
    client = await whole.client()
    core = client._core
    (connector,) = core.configuration.connectors
    alone = [msgspec.structs.replace(connector, relays=[])]
    core.configure(msgspec.structs.replace(core.configuration, connectors=alone, relays=[]))
    await client._links.pop(connector.id).aclose()
    await (await whole.flow(client)).echo()
    assert link_of(client).direct


async def test_a_cut_ends_direct_flows_as_any_other(start: Start) -> None:
    whole = await start(free_port())
    client = await whole.client()
    flow = await whole.flow(client)
    assert link_of(client).direct
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    with pytest.raises(FlowRefused):
        await client.open_stream(whole.resource.destination)
