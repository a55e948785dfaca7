"""A client's core with a configuration, and stand-ins for a client that opens flows to real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from klinket.client.ports import NameSource
from klinket.domain.address import ResourceAddress
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.resource import Resource, ResourceIndex
from klinket.net import sockets
from klinket.net.segments import Taker
from tests.unit.whole import Whole, everything


def granted(id: int, address: str, alias: str | None = None) -> Resource:
    """Return a resource with all ports."""
    return Resource(ResourceId(id), f"resource {id}", ResourceAddress.parse(address), RemoteNetworkId(1), alias)


class Echo:
    """A flow whose resource sends back what it gets. Implements ports.OpenedFlow."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.aborted = False
        self.early = b""
        self._carrying: asyncio.Task[None] | None = None

    async def begin(self, local: socket.socket, early: bytes, over: Callable[[Echo], None]) -> None:
        self._carrying = asyncio.ensure_future(self.carry(local, early))
        self._carrying.add_done_callback(lambda _: over(self))

    async def carry(self, local: socket.socket, early: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        self.early = early
        with local:
            await loop.sock_sendall(local, early)
            while data := await loop.sock_recv(local, 65_536):
                await loop.sock_sendall(local, data)

    def abort(self) -> None:
        self.aborted = True
        if self._carrying is not None:
            self._carrying.cancel()


class Resetting(Echo):
    """A flow whose resource resets the connection after the first bytes."""

    async def carry(self, local: socket.socket, early: bytes = b"") -> None:
        await asyncio.get_running_loop().sock_recv(local, 1)
        sockets.reset(local)


class EchoDatagrams:
    """An association whose resource sends back what it gets. Implements ports.DatagramFlow."""

    def __init__(self, resource: Resource, before: bytes = b"echo ") -> None:
        self.resource = resource
        self.closed = False
        self._before = before
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._deliver: Taker | None = None

    def start(self, deliver: Taker, ended: Callable[[FlowRefused], None]) -> None:
        self._deliver = deliver

    def put_all(self, datagrams: Sequence[bytes | memoryview]) -> None:
        for datagram in datagrams:
            self.put(bytes(datagram))

    def put(self, datagram: bytes) -> None:
        assert self._deliver is not None
        answer = b"echo " + datagram
        self._deliver(answer, len(answer))

    async def send(self, datagram: bytes) -> None:
        self._answers.put_nowait(self._before + datagram)

    async def receive(self) -> bytes:
        return await self._answers.get()

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeClient:
    """Implements ports.FlowOpener. `former`: granted no more; `refusals`: by host; everything else that is granted echoes."""

    resources: list[Resource] = field(default_factory=list)
    refusals: dict[str, FlowRefused] = field(default_factory=dict)
    resetting: set[str] = field(default_factory=set)
    asked: list[Destination] = field(default_factory=list)
    flows: list[Echo] = field(default_factory=list)
    associations: list[EchoDatagrams] = field(default_factory=list)
    former: list[Resource] = field(default_factory=list)
    names: NameSource | None = None

    def grant(self, address: str, alias: str | None = None) -> Resource:
        """Grant one more resource."""
        self.resources.append(granted(len(self.resources) + 1, address, alias))
        return self.resources[-1]

    def refuse(self, host: str, failure: FlowFailure, retry_after: float | None = None) -> None:
        """Refuse flows to a host from now on."""
        self.refusals[host] = FlowRefused(failure, f"{host} said no", retry_after=retry_after)

    def resource_for(self, host: str) -> Resource | None:
        return ResourceIndex(self.resources).lookup(host)

    def claims(self, host: str) -> bool:
        return ResourceIndex([*self.resources, *self.former]).lookup(host) is not None

    def _decide(self, destination: Destination) -> Resource:
        self.asked.append(destination)
        if (refusal := self.refusals.get(destination.host)) is not None:
            raise refusal
        resource = self.resource_for(destination.host)
        if resource is None:
            raise FlowRefused(FlowFailure.NOT_GRANTED, f"no granted resource serves {destination.host}")
        return resource

    async def open_stream(self, destination: Destination) -> Echo:
        flow = (Resetting if destination.host in self.resetting else Echo)(self._decide(destination))
        self.flows.append(flow)
        return flow

    async def open_early(self, destination: Destination, refused: Callable[[FlowRefused], None]) -> Echo:
        return await self.open_stream(destination)

    async def open_datagrams(self, destination: Destination) -> EchoDatagrams:
        is_icmp = destination.protocol is TransportProtocol.ICMP  # a reply repeats its request
        association = EchoDatagrams(self._decide(destination), b"" if is_icmp else b"echo ")
        self.associations.append(association)
        return association


@pytest.fixture
def client() -> FakeClient:
    """A client that was granted echo.internal."""
    made = FakeClient()
    made.grant("echo.internal")
    return made


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made
