"""Two ends of a link, and pipes between them over real loopback sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from klinket.net import sockets
from klinket.net.pipe import SealedPipe
from klinket.wire import pipe as wire
from klinket.wire.link import Link
from klinket.wire.pipe import Purpose


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection on loopback, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        two, _ = server.accept()
    return sockets.prepare(one), sockets.prepare(two)


@dataclass
class Ends:
    """A pipe: the client's and the connector's end."""

    client: SealedPipe
    connector: SealedPipe


def pipe_ends() -> Ends:
    """Return both ends of a fresh pipe."""
    link = Link(os.urandom(16), os.urandom(32), 4e9)
    client_random, connector_random = os.urandom(32), os.urandom(32)
    one, two = tcp_pair()
    return Ends(
        SealedPipe(one, wire.client_keys(link, Purpose.FLOW, client_random, connector_random), Purpose.FLOW),
        SealedPipe(two, wire.connector_keys(link, Purpose.FLOW, client_random, connector_random), Purpose.FLOW),
    )


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A fresh pipe, closed afterwards."""
    pair = pipe_ends()
    yield pair
    pair.client.abort()
    pair.connector.abort()
