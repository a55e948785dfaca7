"""Receivers on loopback, with real TLS: what a sink delivers to."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from klinket.controller.sinks.delivery import Deliveries
from tests.unit.controller.running import Running

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A listener's address, the authority of its certificate, and what it got."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.authority = authority.cert_pem.bytes().decode()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.context)
        self.got: list[Any] = []
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self, handle: Handle, *, tls: bool = True) -> AsyncIterator[None]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handle(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", self.port, ssl=self.context if tls else None)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


async def round_of(controller: Running, *, allowed: Any = LOOPBACK) -> None:
    """Let every sink get what is due now."""
    deliveries = Deliveries(controller.store, controller.master.open, allowed)
    await deliveries.look()
    await deliveries.idle()


async def made(controller: Running, arguments: str) -> dict[str, Any]:
    """Create a sink over the API and return the payload."""
    query = f"mutation {{ sinkCreate({arguments}) {{ ok error secret entity {{ id name kind streams where }} }} }}"
    (payload,) = (await controller.query(query, extension=True)).values()
    return dict(payload)


async def state(controller: Running) -> dict[str, Any]:
    """Return the only sink as the API shows it."""
    fields = "id waiting attempts lastError nextTryAt lastDeliveredAt isEnabled"
    answer = await controller.query(f"{{ sinks {{ edges {{ node {{ {fields} }} }} }} }}", extension=True)
    (edge,) = answer["sinks"]["edges"]
    return dict(edge["node"])


def quoted(text: str) -> str:
    """Return a GraphQL string."""
    return json.dumps(text)
