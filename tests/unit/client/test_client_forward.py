"""`klinket forward`: what its words mean, where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from klinket.client import forward
from klinket.client.forward import Forward, Listening, parse
from klinket.domain.errors import Conflict, FlowRefused, InvalidInput, ServiceKeyRevoked
from klinket.domain.flow import FlowFailure
from klinket.net.sockets import HostPort
from tests.eventually import PATIENCE
from tests.unit.whole import Whole


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["db.internal:5432"], [("db.internal:5432", None)]),
        (["db.internal:5432", "15432"], [("db.internal:5432", ("127.0.0.1", 15432))]),
        (["db:1", "127.0.0.2:7", "cache:2", "0"], [("db:1", ("127.0.0.2", 7)), ("cache:2", ("127.0.0.1", 0))]),
        (["db:1", "[::1]:7"], [("db:1", ("::1", 7))]),
        (["db:1", "cache:2"], [("db:1", None), ("cache:2", None)]),
        (["Build cache", "10.0.0.7:22"], [("Build cache", None), ("10.0.0.7:22", None)]),
        (["127.0.0.1:80", "127.0.0.1:8080"], [("127.0.0.1:80", ("127.0.0.1", 8080))]),
    ],
)
def test_a_port_or_loopback_address_after_a_resource_is_where_it_listens(
    words: list[str], meant: list[tuple[str, tuple[str, int] | None]]
) -> None:
    assert parse(words) == [Forward(wanted, None if local is None else HostPort(*local)) for wanted, local in meant]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["15432", "db:1"], "no resource before 15432"), (["db:1", "70000"], "no port: 70000"), (["a:1"] * 257, "the limit is 256")],
)
def test_words_that_mean_nothing_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse(words)


class Running:
    """A forward that runs: what it printed, what it told, and how to stop it."""

    def __init__(self, whole: Whole, *words: str) -> None:
        self.stop = asyncio.Event()
        self.told: list[str] = []
        self._ready: asyncio.Future[Sequence[Listening]] = asyncio.get_running_loop().create_future()
        work = forward.run(whole.key_file, parse(words), PATIENCE, self.stop, self._ready.set_result, self.told.append)
        self.task = asyncio.ensure_future(work)

    async def ready(self) -> Sequence[Listening]:
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([self._ready, self.task], return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                await self.task
            return self._ready.result()

    async def end(self) -> None:
        self.stop.set()
        await self.task


async def test_a_connection_to_each_port_is_a_flow_to_its_resource(whole: Whole) -> None:
    port = whole.resource.destination.port
    running = Running(whole, f"Echo:{port}", "0", f"127.0.0.1:{port}", "0")
    first, second = await running.ready()
    assert first.address != second.address
    assert first.resource == "Echo"
    for one in (first, second):
        reader, writer = await asyncio.open_connection(one.address.host, one.address.port)
        writer.write(b"ping")
        assert await asyncio.wait_for(reader.readexactly(4), PATIENCE) == b"ping"
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()
    await running.end()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(first.address.host, first.address.port)


async def test_a_port_that_is_taken_is_replaced_only_where_it_was_not_asked_for(whole: Whole) -> None:
    port = whole.resource.destination.port  # the resource itself listens there, on the same loopback
    running = Running(whole, f"Echo:{port}")
    (listening,) = await running.ready()
    assert listening.address.port != port
    await running.end()
    with pytest.raises(Conflict, match=f"cannot listen on 127.0.0.1:{port}"):
        await Running(whole, f"Echo:{port}", str(port)).ready()


async def test_a_refused_connection_is_reset_and_the_reason_told(whole: Whole) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    running = Running(whole, f"Echo:{port}", "0")
    (listening,) = await running.ready()
    reader, _ = await asyncio.open_connection(listening.address.host, listening.address.port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), PATIENCE)
    assert len(running.told) == 1
    assert running.told[0].startswith(f"klinket: 127.0.0.1:{port}: refused: ")
    await running.end()


async def test_what_is_not_granted_is_not_listened_for(whole: Whole) -> None:
    with pytest.raises(FlowRefused) as caught:
        await Running(whole, "other.internal:80", "0").ready()
    assert caught.value.failure is FlowFailure.NOT_GRANTED


async def test_a_resource_of_many_ports_needs_one(whole: Whole) -> None:
    with pytest.raises(InvalidInput, match="which port of 'Echo'"):
        await Running(whole, "Echo").ready()


async def test_the_end_of_the_key_is_the_end_of_the_forward(whole: Whole) -> None:
    running = Running(whole, f"Echo:{whole.resource.destination.port}", "0")
    await running.ready()
    await whole.controller.revoke_key(whole.key)
    with pytest.raises(ServiceKeyRevoked):
        await asyncio.wait_for(running.task, PATIENCE)
