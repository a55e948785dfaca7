"""docs/reference/wire.md suffices: a client written from it alone works with the real relay and connector; its attacks fail."""

from __future__ import annotations

import ast
import asyncio
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from klinket.domain.grant import Principal
from klinket.net import pipe as pipes
from klinket.wire import signing
from klinket.wire.identity import ClientIdentity
from klinket.wire.ticket import TicketRole
from tests.unit.connector import second_client
from tests.unit.connector.conftest import NETWORK, principal, record, resource
from tests.unit.connector.second_client import (
    CONTROL_PIPE,
    DATA,
    FAIL,
    FIN,
    FLOW_PIPE,
    OPENED,
    Admission,
    SecondLink,
    SecondPipe,
)
from tests.unit.connector.test_connector_links import NOW, Connector, connector
from tests.unit.net.test_net_link import CLIENTS, CONNECTOR, CONNECTORS, certified
from tests.unit.relay.conftest import ticket
from tests.unit.relay.test_relay_server import Running, relay, start_relay, state

__all__ = ["connector", "relay", "start_relay", "state"]  # fixtures
T = TypeVar("T")
ECHO = resource(5, "127.0.0.1")


async def beside(work: Callable[[], T]) -> T:
    """Run what blocks in a thread."""
    async with asyncio.timeout(20):
        return await asyncio.to_thread(work)


class Reach:
    """The second client's ways to a real connector behind a real relay."""

    def __init__(self, running: Running, served: Connector, directory: Path) -> None:
        self._path = running.path(TicketRole.CONNECTOR)
        self._served = served
        self._directory = directory
        self._address = (running.address.host, running.address.port)
        self._pin = running.entry.certificate_sha256
        self.admission: Admission
        self.who: Principal = principal()
        self.sockets: list[socket.socket] = []

    async def admit(self) -> None:
        signed = ticket(now=time.time(), lifetime=600)  # the relay's own clock goes on while other tests run
        self.admission = await beside(lambda: Admission(self._address, self._pin, signed))

    async def joined(self) -> socket.socket:
        idle = await self._path.register(7)
        random = await pipes.greet(idle.sock, os.urandom)
        sock, mine = await asyncio.gather(beside(lambda: self.admission.connect(7)), idle.paired())
        sock.settimeout(10)
        self.sockets.append(sock)
        self._served.serving.append(asyncio.ensure_future(self._served.server.serve(mine, random, 7)))
        return sock

    async def link(self) -> SecondLink:
        side = certified(CLIENTS, ClientIdentity(NETWORK, self.who).uri)
        self.jkt = signing.thumbprint(side.key.public_key())
        own, authority = self._directory / "own.pem", self._directory / "authority.pem"
        pem = signing.private_key_to_pem(side.key)
        own.write_text((pem if isinstance(pem, str) else pem.decode()) + side.certificate)
        authority.write_text(CONNECTORS.certificate_pem)
        sock = await self.joined()
        return await beside(lambda: SecondLink(sock, own, authority, CONNECTOR.uri))

    async def pipe(self, link: SecondLink, purpose: int = FLOW_PIPE) -> SecondPipe:
        sock = await self.joined()
        return await beside(lambda: SecondPipe(sock, link, purpose))

    async def granted(self) -> SecondLink:
        link = await self.link()
        control = await self.pipe(link, CONTROL_PIPE)
        token = self._served.world.grant(record(self.who, self.jkt), ECHO, now=NOW)
        answer = await beside(lambda: control.present(token))
        assert answer["type"] == "grant-accepted", answer
        return link


@pytest.fixture
async def reach(relay: Running, connector: Connector, tmp_path: Path) -> AsyncIterator[Reach]:
    made = Reach(relay, connector, tmp_path)
    await made.admit()
    yield made
    for sock in made.sockets:
        sock.close()


@pytest.fixture
def echo() -> AsyncIterator[int]:  # type: ignore[misc]
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_the_second_client_knows_the_document_only() -> None:
    source = Path(second_client.__file__).read_text()
    imported = [
        name.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    ]
    assert not [name for name in imported if "klinket" in name]


async def test_flows_one_after_another_on_one_pipe(reach: Reach, echo: int) -> None:
    pipe = await reach.pipe(await reach.granted())

    def flow(said: bytes) -> bytes:
        kind, address = pipe.open("127.0.0.1", echo)
        assert (kind, address) == (OPENED, b"127.0.0.1")
        pipe.send(DATA, said)
        pipe.send(FIN)
        heard = b""
        while (frame := pipe.receive())[0] == DATA:
            heard += frame[1]
        assert frame == (FIN, b"")
        return heard

    for said in (b"hello", bytes(200_000), b"x"):
        assert await beside(lambda said=said: flow(said)) == said  # type: ignore[misc]


async def test_what_is_not_granted_is_refused_in_the_documents_words(reach: Reach) -> None:
    pipe = await reach.pipe(await reach.granted())
    kind, content = await beside(lambda: pipe.open("db.internal", 5432))
    assert (kind, content[0]) == (FAIL, 1)


def is_ended(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "attack",
    ["replayed pipe", "swapped pipes", "stolen handle", "flipped bit", "frame left out", "purpose changed", "another's grant"],
)
async def test_attacks_get_nothing(reach: Reach, echo: int, attack: str) -> None:
    """A relay sees and changes every byte; a client may hold what another presented."""
    link = await reach.granted()
    victim, other = await reach.pipe(link), await reach.pipe(link)
    recorded = victim.frame(1, b"\x06\x00" + echo.to_bytes(2, "big") + bytes(24) + b"\x09127.0.0.1" + bytes(473))
    match attack:
        case "replayed pipe":
            victim.sock.sendall(recorded)
            assert (await beside(victim.receive))[0] == OPENED
            sock = await reach.joined()
            await beside(lambda: second_client.exactly(sock, 33))
            sock.sendall(recorded)  # hello and OPEN again, where the connector has drawn another random
        case "swapped pipes":
            sock = other.sock
            sock.sendall(recorded)
        case "stolen handle":
            sock = await reach.joined()
            stolen = second_client.SecondLink.__new__(second_client.SecondLink)
            stolen.handle, stolen.secret = link.handle, os.urandom(32)
            thief = await beside(lambda: SecondPipe(sock, stolen, FLOW_PIPE))
            thief.send(1, bytes(511))
        case "flipped bit":
            sock = victim.sock
            sock.sendall(recorded[:-1] + bytes([recorded[-1] ^ 1]))
        case "frame left out":
            sock = victim.sock
            sock.sendall(recorded[:50] + victim.frame(DATA, b"second"))
        case "purpose changed":
            sock = victim.sock
            sock.sendall(recorded[:1] + bytes([CONTROL_PIPE]) + recorded[2:])
        case _:
            reach.who = principal(session="b" * 22)
            control = await reach.pipe(await reach.link(), CONTROL_PIPE)
            token = reach._served.world.grant(record(principal(), reach.jkt), ECHO, now=NOW)
            assert (await beside(lambda: control.present(token)))["type"] == "grant-refused"
            return
    assert await beside(lambda: is_ended(sock))
