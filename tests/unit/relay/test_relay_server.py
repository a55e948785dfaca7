"""A relay on real sockets: tickets inside pinned TLS, hellos within their time, refusals aloud, bytes moved faithfully."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
import stat
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from klinket.net import sockets, workers
from klinket.net.relay_path import RelayPath, RelayUnavailable
from klinket.net.sockets import HostPort
from klinket.net.tls import TlsStream
from klinket.relay import certificate, sharing
from klinket.relay import server as relay_server
from klinket.relay.core import RelayCore
from klinket.relay.limits import RelayLimits
from klinket.relay.server import RelayServer
from klinket.wire.inventory import RelayEntry
from klinket.wire.relay import (
    ADMISSION_PROTOCOL,
    HELLO_BYTES,
    TLS_HANDSHAKE,
    VERSION,
    RelayAnswer,
    RelayError,
    RelayHello,
    RelayRole,
    encode_ticket,
)
from klinket.wire.signing import KeySet
from klinket.wire.ticket import TicketRole
from tests.eventually import eventually
from tests.unit.relay.conftest import KEY, NETWORK, NOW, RELAY, ticket

MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("relay")


@dataclass
class Running:
    """A relay that listens, and ways to it."""

    core: RelayCore
    server: RelayServer
    entry: RelayEntry
    open_sockets: list[socket.socket] = field(default_factory=list)

    @property
    def address(self) -> HostPort:
        return HostPort.parse(self.entry.address)

    def path(
        self, role: TicketRole = TicketRole.CLIENT, connectors: tuple[int, ...] = (7,), holder: str = "session-1"
    ) -> RelayPath:
        relay_role = RelayRole.CLIENT if role is TicketRole.CLIENT else RelayRole.CONNECTOR
        who = holder if role is TicketRole.CLIENT else f"connector:{connectors[0]}"
        signed = ticket(role, connectors, holder=who, now=time.time(), lifetime=3600)
        return RelayPath(self.entry, relay_role, lambda: signed, time.time)

    async def raw(self, source: str = "") -> socket.socket:
        if source:
            sock = sockets.prepare(socket.create_connection((self.address.host, self.address.port), 5, (source, 0)))
        else:
            sock = await sockets.connect(self.address, 5)
        self.open_sockets.append(sock)
        return sock

    async def joined(self) -> tuple[socket.socket, socket.socket]:
        """Return a client's and a connector's end of a pair."""
        waiting = await self.path(TicketRole.CONNECTOR).register(7)
        client = await self.path().connect(7)
        connector = await waiting.paired()
        self.open_sockets += [client, connector]
        return client, connector


StartRelay = Callable[..., Awaitable[Running]]


@pytest.fixture
async def start_relay(state: Path) -> AsyncIterator[StartRelay]:
    running: list[Running] = []

    async def start(**limits: object) -> Running:
        settings = RelayLimits(**limits)  # type: ignore[arg-type]
        core = RelayCore(settings, os.urandom)
        core.configure(RELAY, NETWORK, KeySet({KEY.kid: KEY.public_key}).to_jwks())
        context, digest = certificate.load_or_make(state)
        server = RelayServer(core, context, settings, time.time)
        port = server.listen(HostPort("127.0.0.1", 0))
        entry = RelayEntry(id=RELAY, address=f"127.0.0.1:{port}", certificate_sha256=digest)
        running.append(Running(core, server, entry))
        return running[-1]

    yield start
    for one in running:
        await one.server.aclose()
        for sock in one.open_sockets:
            sock.close()


@pytest.fixture
async def relay(start_relay: StartRelay) -> Running:
    return await start_relay()


async def closed(sock: socket.socket, seconds: float = 3.0) -> bytes:
    """Read until the relay closes the connection; return what it said."""
    said = b""
    async with asyncio.timeout(seconds):
        try:
            while more := await asyncio.get_running_loop().sock_recv(sock, 4096):
                said += more
        except ConnectionResetError:
            pass
    return said


# ---- admission


def test_the_certificate_is_kept_and_its_key_private(tmp_path: Path) -> None:
    _, one = certificate.load_or_make(tmp_path / "state")
    _, two = certificate.load_or_make(tmp_path / "state")
    assert one == two
    assert stat.S_IMODE((tmp_path / "state" / "relay-certificate.pem").stat().st_mode) == 0o600
    assert certificate.load_or_make(tmp_path / "other")[1] != one


async def test_a_ticket_makes_a_pair_through_which_bytes_move(relay: Running) -> None:
    loop = asyncio.get_running_loop()
    client, connector = await relay.joined()
    await loop.sock_sendall(client, b"question")
    assert await loop.sock_recv(connector, 100) == b"question"
    await loop.sock_sendall(connector, b"answer")
    assert await loop.sock_recv(client, 100) == b"answer"
    assert (relay.server.pairs, relay.core.waiting) == (1, 0)


async def test_what_the_connector_sent_while_waiting_arrives(relay: Running) -> None:
    waiting = await relay.path(TicketRole.CONNECTOR).register(7)
    await asyncio.get_running_loop().sock_sendall(waiting.sock, b"greeting")
    client = await relay.path().connect(7)
    with client, await waiting.paired():
        assert await sockets.receive_exactly(client, 8) == b"greeting"


async def test_another_certificate_than_the_pinned_one_gets_no_ticket(relay: Running) -> None:
    entry = RelayEntry(id=RELAY, address=relay.entry.address, certificate_sha256="0" * 64)
    asked: list[str] = []

    def give() -> str:
        asked.append("")
        return ticket()

    with pytest.raises(RelayUnavailable, match="not the one"):
        await RelayPath(entry, RelayRole.CLIENT, give, time.time).connect(7)
    assert not asked


@pytest.mark.parametrize(
    "signed", [lambda: ticket(network="evil", now=time.time()), lambda: ticket(now=NOW - 9e8), lambda: "junk"]
)
async def test_a_ticket_that_is_not_valid_is_refused_aloud(relay: Running, signed: Callable[[], str]) -> None:
    with pytest.raises(RelayError) as caught:
        await RelayPath(relay.entry, RelayRole.CLIENT, signed, time.time).connect(7)
    assert caught.value.answer is RelayAnswer.TICKET_REFUSED


async def tls(relay: Running, version: ssl.TLSVersion | None = None) -> TlsStream:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ADMISSION_PROTOCOL])
    if version is not None:
        context.maximum_version = version
    stream = TlsStream(await relay.raw(), context, server_side=False)
    await stream.handshake()
    return stream


async def test_only_tls_1_3(relay: Running) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await tls(relay, ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize("offered", [[], ["h2", "http/1.1"]], ids=["none", "others"])
async def test_only_the_protocol_of_admissions(relay: Running, offered: list[str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if offered:
        context.set_alpn_protocols(offered)
    stream = TlsStream(await relay.raw(), context, server_side=False)
    await stream.handshake()
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(3):
            await stream.write(encode_ticket(ticket(TicketRole.CLIENT, now=time.time(), lifetime=3600)))
            await stream.read_exactly(1)


@pytest.mark.parametrize("length", [0, 16_385, 65_535])
async def test_a_ticket_of_a_wrong_length_ends_the_connection(relay: Running, length: int) -> None:
    stream = await tls(relay)
    await stream.write(struct.pack(">H", length) + b"x" * 100)
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(3):
            await stream.read_exactly(1)


async def test_bytes_that_are_no_ticket_are_answered(relay: Running) -> None:
    stream = await tls(relay)
    await stream.write(encode_ticket("x")[:2] + b"\xff")
    assert (await stream.read_exactly(1))[0] == RelayAnswer.TICKET_REFUSED


async def test_the_limit_of_admissions_is_told(start_relay: StartRelay) -> None:
    relay = await start_relay(max_admissions=1)
    waiting = await relay.path(TicketRole.CONNECTOR).register(7)
    with waiting.sock, pytest.raises(RelayError) as caught:
        await relay.path().connect(7)
    assert caught.value.answer is RelayAnswer.LIMIT


# ---- hellos


@pytest.mark.parametrize("first", [b"\x00", b"G", b"\x02", b"\xff"])
async def test_another_protocol_is_closed_without_a_word(relay: Running, first: bytes) -> None:
    sock = await relay.raw()
    sock.send(first + b"ET / HTTP/1.1\r\n\r\n")
    assert await closed(sock) == b""


@pytest.mark.parametrize("begun", [b"", bytes([VERSION]), bytes([VERSION]) * (HELLO_BYTES - 1), bytes([TLS_HANDSHAKE, 3, 1])])
async def test_a_slow_hello_is_ended(start_relay: StartRelay, begun: bytes) -> None:
    relay = await start_relay(hello_seconds=0.3)
    sock = await relay.raw()
    if begun:
        sock.send(begun)
    started = time.monotonic()
    assert await closed(sock) == b""  # which waits for 3 s
    assert time.monotonic() - started > 0.2


async def test_a_hello_that_drips_is_ended(start_relay: StartRelay) -> None:
    relay = await start_relay(hello_seconds=0.3)
    sock = await relay.raw()
    with pytest.raises((ConnectionError, BrokenPipeError)):
        for byte in bytes([VERSION]) * (HELLO_BYTES - 1):
            sock.send(bytes([byte]))
            await asyncio.sleep(0.02)  # 1.3 s in all


async def test_a_ticket_that_does_not_come_is_not_waited_for(start_relay: StartRelay) -> None:
    relay = await start_relay(hello_seconds=0.5)
    stream = await tls(relay)
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(3):
            await stream.read_exactly(1)


async def test_an_unknown_admission_is_told(relay: Running) -> None:
    sock = await relay.raw()
    sock.send(RelayHello(RelayRole.CLIENT, bytes(16), 1, 7).sign(bytes(32)))
    assert await closed(sock) == bytes([RelayAnswer.UNKNOWN_ADMISSION])


async def test_a_replayed_hello_is_told(relay: Running) -> None:
    admission = relay.core.admit(ticket(now=time.time()), time.time())
    hello = RelayHello(RelayRole.CLIENT, admission.id, 1, 7).sign(admission.key)
    first, second = await relay.raw(), await relay.raw()
    first.send(hello)
    await eventually(lambda: relay.core.waiting == 1)
    second.send(hello)
    assert await closed(second) == bytes([RelayAnswer.REPLAYED])
    assert relay.core.waiting == 1


async def test_a_forged_hello_is_closed_without_a_word(relay: Running) -> None:
    admission = relay.core.admit(ticket(now=time.time()), time.time())
    sock = await relay.raw()
    sock.send(RelayHello(RelayRole.CLIENT, admission.id, 1, 7).sign(os.urandom(32)))
    assert await closed(sock) == b""
    assert relay.core.waiting == 0


async def test_a_connector_that_nobody_named_is_refused_aloud(relay: Running) -> None:
    with pytest.raises(RelayError) as caught:
        await relay.path(connectors=(7,)).connect(8)
    assert caught.value.answer is RelayAnswer.NOT_ALLOWED


async def test_an_addresses_own_oldest_silent_connection_gives_way(start_relay: StartRelay) -> None:
    relay = await start_relay(max_hellos_per_address=2, hello_seconds=3)
    slow = [await relay.raw() for _ in range(2)]
    sock = await relay.raw()
    assert await closed(slow[0], 1) == bytes([RelayAnswer.LIMIT])
    sock.send(RelayHello(RelayRole.CLIENT, bytes(16), 1, 7).sign(bytes(32)))
    assert await closed(sock) == bytes([RelayAnswer.UNKNOWN_ADMISSION])
    with pytest.raises(TimeoutError):
        await closed(slow[1], 0.1)


async def test_silent_connections_of_a_few_addresses_keep_nobody_out(start_relay: StartRelay) -> None:
    relay = await start_relay(max_hellos=40, hello_seconds=3)
    for last in range(2, 6):
        for _ in range(15):
            await relay.raw(f"127.0.0.{last}")
    waiting = await relay.path(TicketRole.CONNECTOR).register(7)
    with await relay.path().connect(7), await waiting.paired():
        assert relay.server.pairs == 1


def test_a_host_cannot_count_as_many_by_its_ipv6_addresses() -> None:
    assert relay_server.source_of("2001:db8:1:2:aaaa::1") == relay_server.source_of("2001:db8:1:2:bbbb::1%eth0")


async def test_one_session_does_not_take_all_pairs(start_relay: StartRelay) -> None:
    relay = await start_relay(max_pairs=4)
    connectors, hog, victim = relay.path(TicketRole.CONNECTOR), relay.path(), relay.path(holder="session-2")
    for _ in range(4):
        await connectors.register(7)
    await eventually(lambda: relay.core.waiting == 4)
    held = [await hog.connect(7), await hog.connect(7)]
    with pytest.raises(RelayError) as caught:
        await hog.connect(7)
    assert caught.value.answer is RelayAnswer.LIMIT
    with await victim.connect(7):
        pass
    held.pop().close()
    await eventually(lambda: relay.server.pairs == 1)
    with await hog.connect(7):
        pass
    held.pop().close()
    await eventually(lambda: relay.core.pairs.total == 0)


async def test_a_ticket_is_taken_once(relay: Running) -> None:
    signed, told = [ticket(now=time.time(), lifetime=3600)], []
    path = RelayPath(relay.entry, RelayRole.CLIENT, lambda: signed[-1], time.time, lambda: told.append("a new one is needed"))
    await path._admitted()
    path.forget_admission()
    with pytest.raises(RelayError) as caught:
        await path._admitted()
    assert caught.value.answer is RelayAnswer.TICKET_REFUSED
    assert told == ["a new one is needed"]
    signed.append(ticket(now=time.time(), lifetime=3600))
    await path._admitted()


async def test_a_client_whose_connector_does_not_come_is_told(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_server, "SWEEP_SECONDS", 0.05)
    relay = await start_relay(pairing_seconds=0.2)
    with pytest.raises(RelayError) as caught:
        await relay.path().connect(7)
    assert caught.value.answer is RelayAnswer.NO_CONNECTOR
    assert relay.core.waiting == 0


async def test_a_waiting_connection_that_goes_is_forgotten(relay: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_server, "SWEEP_SECONDS", 0.05)
    waiting = await relay.path(TicketRole.CONNECTOR).register(7)
    await eventually(lambda: relay.core.waiting == 1)
    waiting.sock.close()
    await eventually(lambda: relay.core.waiting == 0)


# ---- pairs


async def test_two_connectors_are_told_apart(relay: Running) -> None:
    loop = asyncio.get_running_loop()
    seven = await relay.path(TicketRole.CONNECTOR, (7,)).register(7)
    eight = await relay.path(TicketRole.CONNECTOR, (8,)).register(8)
    clients = relay.path(connectors=(7, 8))
    to_eight, to_seven = await clients.connect(8), await clients.connect(7)
    with to_eight, to_seven, await seven.paired() as at_seven, await eight.paired() as at_eight:
        await loop.sock_sendall(to_seven, b"seven")
        await loop.sock_sendall(to_eight, b"eight")
        assert await sockets.receive_exactly(at_seven, 5) == b"seven"
        assert await sockets.receive_exactly(at_eight, 5) == b"eight"


async def test_an_end_of_stream_is_passed_on_and_the_other_direction_goes_on(relay: Running) -> None:
    loop = asyncio.get_running_loop()
    client, connector = await relay.joined()
    await loop.sock_sendall(client, b"question")
    client.shutdown(socket.SHUT_WR)
    assert await sockets.receive_exactly(connector, 8) == b"question"
    assert await loop.sock_recv(connector, 1) == b""
    await loop.sock_sendall(connector, b"answer")
    assert await sockets.receive_exactly(client, 6) == b"answer"
    assert relay.server.pairs == 1
    connector.close()
    assert await loop.sock_recv(client, 1) == b""
    await eventually(lambda: relay.server.pairs == 0)


@pytest.mark.parametrize("which", ["client", "connector"])
async def test_a_reset_is_passed_on_as_a_reset(relay: Running, which: str) -> None:
    client, connector = await relay.joined()
    here, there = (client, connector) if which == "client" else (connector, client)
    sockets.reset(here)
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(3):
            await asyncio.get_running_loop().sock_recv(there, 1)
    await eventually(lambda: relay.server.pairs == 0)


async def test_bytes_arrive_unaltered_both_ways_under_back_pressure(relay: Running) -> None:
    loop = asyncio.get_running_loop()
    client, connector = await relay.joined()
    total = 24 * MEBIBYTE + 11

    async def send(sock: socket.socket, seed: int) -> str:
        rng, digest, left = random.Random(seed), hashlib.sha256(), total
        while left:
            piece = rng.randbytes(min(left, rng.choice((1, 1000, MEBIBYTE))))
            digest.update(piece)
            await loop.sock_sendall(sock, piece)
            left -= len(piece)
        sock.shutdown(socket.SHUT_WR)
        return digest.hexdigest()

    async def receive(sock: socket.socket, seed: int) -> str:
        rng, digest = random.Random(seed), hashlib.sha256()
        while data := await loop.sock_recv(sock, rng.choice((4096, MEBIBYTE))):
            digest.update(data)
            if rng.random() < 0.01:
                await asyncio.sleep(0.005)
        return digest.hexdigest()

    async with asyncio.timeout(60):
        up, down, up_seen, down_seen = await asyncio.gather(
            send(client, 1), send(connector, 2), receive(connector, 3), receive(client, 4)
        )
    assert (up, down) == (up_seen, down_seen)
    await eventually(lambda: relay.server.pairs == 0)


async def test_a_peer_that_reads_nothing_holds_the_sender_back_and_nobody_else(relay: Running) -> None:
    loop = asyncio.get_running_loop()
    client, connector = await relay.joined()
    sender = asyncio.ensure_future(loop.sock_sendall(client, bytes(64 * MEBIBYTE)))
    await asyncio.sleep(0.3)
    assert not sender.done()
    other_client, other_connector = await relay.joined()
    await loop.sock_sendall(other_client, b"ping")
    assert await sockets.receive_exactly(other_connector, 4) == b"ping"
    # the direction back is not held up either
    await loop.sock_sendall(connector, b"pong")
    assert await sockets.receive_exactly(client, 4) == b"pong"
    sockets.reset(connector)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await asyncio.wait_for(sender, 5)


async def test_a_pair_that_moves_nothing_for_very_long_is_reset(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_server, "SWEEP_SECONDS", 0.05)
    relay = await start_relay(pair_idle_seconds=1.0)
    client, connector = await relay.joined()
    for _ in range(6):
        await asyncio.sleep(0.2)
        client.send(b"x")
        await sockets.receive_exactly(connector, 1)
    assert relay.server.pairs == 1
    await eventually(lambda: relay.server.pairs == 0)
    with pytest.raises(ConnectionResetError):
        await sockets.receive_exactly(client, 1)


async def test_a_relay_that_stops_resets_what_it_held(relay: Running) -> None:
    client, connector = await relay.joined()
    waiting = await relay.path(TicketRole.CONNECTOR).register(7)
    await eventually(lambda: relay.core.waiting == 1)
    await relay.server.aclose()
    for sock in (client, connector):
        with pytest.raises(ConnectionResetError):
            await sockets.receive_exactly(sock, 1)
    with pytest.raises(RelayError):
        await waiting.paired()


async def test_a_restarted_relay_is_shown_the_ticket_again(start_relay: StartRelay) -> None:
    relay = await start_relay()
    clients, connectors = relay.path(), relay.path(TicketRole.CONNECTOR)
    waiting = await connectors.register(7)
    with await clients.connect(7), await waiting.paired():
        pass
    relay.core._admitted.clear()  # as after a restart: a relay keeps no admissions, and no tickets it was shown
    relay.core._shown.clear()
    connectors.forget_admission()
    waiting = await connectors.register(7)
    with await clients.connect(7), await waiting.paired():
        pass


async def test_a_relay_without_file_descriptors_waits_quietly_and_then_goes_on(
    relay: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listener = relay.server._listener
    assert listener is not None
    tries = 0

    class Exhausted:
        """The listening socket of a process that may open nothing more."""

        def fileno(self) -> int:
            return listener.fileno()

        def accept(self) -> tuple[socket.socket, object]:
            nonlocal tries
            tries += 1
            raise OSError(24, "Too many open files")

        def close(self) -> None:
            listener.close()

    monkeypatch.setattr(relay.server, "_listener", Exhausted())
    waiting = await relay.raw()
    began = time.monotonic()
    async with asyncio.timeout(10):
        while tries < 4:
            await asyncio.sleep(0.01)
    assert time.monotonic() - began >= 2 * relay_server.ACCEPT_PAUSE_SECONDS
    assert caplog.text.count("cannot accept") == 1
    monkeypatch.setattr(relay.server, "_listener", listener)
    peer = relay.core.admit(ticket(), NOW)
    await asyncio.get_running_loop().sock_sendall(waiting, RelayHello(RelayRole.CLIENT, peer.id, 1, 8).sign(peer.key))
    assert (await asyncio.wait_for(sockets.receive_exactly(waiting, 1), 10))[0] == RelayAnswer.NOT_ALLOWED


def test_files_are_shared_by_hellos_connections_that_wait_pairs_and_their_kernel_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, limits = 20_000, RelayLimits()
    for module in (relay_server, sharing):
        monkeypatch.setattr(module, "raise_limit", lambda: limit)
    shared = sharing.PairSharing(2, limits)
    server = relay_server.RelayServer(RelayCore(limits, os.urandom), ssl.create_default_context(), limits, time.time, shared)
    own = server._core.pairs.capacity - shared.capacity
    pairs_and_pipes, waiting = own * sharing.DESCRIPTORS_PER_PAIR, server._max_connections - 2 * own
    assert limits.max_hellos + limits.spare_descriptors + waiting + pairs_and_pipes <= limit
    assert own > shared.kept, "some that come before the next look fit as well"
    one_worker = shared.capacity // workers.MAX_FOR_FILES
    assert shared.kept + one_worker >= 10_000, "ten thousand pairs need one worker, not two: each has its price"
