"""All four parts in one process, on loopback: a controller, a relay, a connector, and clients with keys of one account."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.deployment import free_port
from klinket.client.client import Client
from klinket.connector.config import ConnectorConfig
from klinket.connector.serve import Connector
from klinket.controller.app import relays
from klinket.controller.app.rows import SessionRow
from klinket.domain.audit import SYSTEM
from klinket.domain.flow import Destination, TransportProtocol
from klinket.net.sockets import HostPort, prepare
from klinket.relay import serve as relay_serve
from klinket.relay.config import RelayConfig
from tests.eventually import PATIENCE, eventually
from tests.unit.controller.running import Running
from tests.unit.net.conftest import tcp_pair


def tasks_named(end: str) -> list[asyncio.Task[object]]:
    """Return the running tasks whose name ends so."""
    return [task for task in asyncio.all_tasks() if task.get_name().endswith(end) and not task.done()]


@dataclass
class Resource:
    """A service on loopback that sends back what it gets, and notes of each connection that ended whether it was reset."""

    listener: socket.socket
    resets: list[bool] = field(default_factory=list)

    @property
    def destination(self) -> Destination:
        return Destination("127.0.0.1", self.listener.getsockname()[1], TransportProtocol.TCP)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._echo(prepare((await loop.sock_accept(self.listener))[0])))

    async def _echo(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            try:
                while data := await loop.sock_recv(connection, 65_536):
                    await loop.sock_sendall(connection, data)
                self.resets.append(False)
            except ConnectionResetError:
                self.resets.append(True)


@dataclass
class Carried:
    """A program's connection on a flow that has echoed."""

    program: socket.socket
    carrying: asyncio.Task[None]

    async def echo(self, data: bytes = b"ping") -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendall(self.program, data)
            assert await loop.sock_recv(self.program, 100) == data

    async def is_reset(self) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                while await asyncio.get_running_loop().sock_recv(self.program, 65_536):
                    pass
        except ConnectionResetError:
            return True
        return False


class Whole:
    """`office`: the remote network's id; `connector_id`, `account`, `key`: ids in the Admin API."""

    def __init__(self, state: Path, stack: AsyncExitStack) -> None:
        self.state = state
        #: Settings of the connector beside its tokens.
        self.settings: dict[str, Any] = {}
        self.controller = Running(state / "controller")
        self._stack = stack
        #: Ends the connector that was started last.
        self.end_connector: Callable[[], Awaitable[None]]
        self.relay_port = free_port()

    async def open(self) -> None:
        """Start everything but clients."""
        await self.controller.open()
        self._stack.callback(self.controller.store.close)
        await self._stack.enter_async_context(self.controller.listening())
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        self.resource = Resource(listener)
        await self._run(self.resource.serve())
        await self._start_relay()
        self.office = await self.controller.add_network()
        granted = await self.controller.add_resource(self.office, "Echo", "127.0.0.1")
        self.account = await self.controller.add_account("ci", [granted])
        self.key, self.key_file = await self.controller.add_key(self.account)
        self.connector_id = await self.controller.add_connector(self.office, "office-1")
        self.connector = await self.start_connector()

    async def _run(self, work: object) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)
        return task  # type: ignore[no-any-return]

    async def _start_relay(self) -> None:
        _, token = await self.controller.write(lambda tx: relays.create_or_replace(tx, SYSTEM, name="relay", entropy=os.urandom))
        address = HostPort("127.0.0.1", self.relay_port)
        config = RelayConfig(
            listen=address,
            advertise=address,
            controller=self.controller.config.public_url,
            token=token,
            state=self.state / "relay",
            controller_ca=self.controller.authority,
        )
        running = await self._run(relay_serve.run(config, asyncio.Event()))
        await eventually(lambda: self.controller.dispatch.snapshot.relays or running.done())
        if running.done():
            await running  # shows why it ended

    async def start_connector(self) -> Connector:
        """Start the connector with new tokens; returns when it waits at the relay."""
        tokens = await self.controller.connector_tokens(self.connector_id)
        config = ConnectorConfig(
            controller=self.controller.config.public_url,
            access_token=tokens["access_token"],
            refresh_token=tokens["refresh_token"],
            state=self.state / "connector",
            controller_ca=self.controller.authority,
            **{"drain_seconds": 3.0, **self.settings},
        )
        made = Connector(config)
        stop = asyncio.Event()
        running = asyncio.ensure_future(made.run(stop))

        async def end() -> None:
            stop.set()
            await asyncio.gather(running, return_exceptions=True)

        self.end_connector = end
        self._stack.push_async_callback(end)
        await eventually(lambda: any(self.controller.peers.online().values()))
        return made

    async def client(self) -> Client:
        """Return a client that is online."""
        made = Client(self.key_file)
        self._stack.push_async_callback(made.aclose)
        await made.start()
        await made.wait_ready((), PATIENCE)
        return made

    async def flow(self, client: Client) -> Carried:
        """Return a flow to the resource that has echoed."""
        stream = await client.open_stream(self.resource.destination)
        program, local = tcp_pair()
        self._stack.callback(program.close)
        carried = Carried(program, asyncio.ensure_future(stream.carry(local)))
        await carried.echo()
        return carried

    async def sessions(self) -> list[SessionRow]:
        return await self.controller.read(lambda tx: tx.sessions.find())


@asynccontextmanager
async def everything(state: Path, **settings: Any) -> AsyncIterator[Whole]:
    """Start all parts, and end them in the order opposite to that. `settings`: of the connector."""
    async with AsyncExitStack() as stack:
        whole = Whole(state, stack)
        whole.settings = settings
        await whole.open()
        yield whole
