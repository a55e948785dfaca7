"""The path through a relay, as clients and connectors use it: admitted once inside TLS, then hellos with a counter."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from klinket.domain.errors import ProtocolError
from klinket.net import sockets
from klinket.net.sockets import HostPort
from klinket.net.tasks import TaskSet
from klinket.net.tls import TlsStream, certificate_digest
from klinket.wire import signing
from klinket.wire.inventory import RelayEntry
from klinket.wire.relay import (
    ADMISSION_PROTOCOLS,
    Admission,
    RelayAnswer,
    RelayError,
    RelayHello,
    RelayRole,
    admitted_bytes,
    certificate_name,
    encode_ticket,
    parse_admission,
)
from klinket.wire.relay_datagram import leg_name

#: Seconds to connect to a relay, and for an admission or pairing on top.
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 8.0
#: Connections of a client that wait at a relay to be joined, at a time: a relay takes 64 of one admission.
MAX_PAIRING = 48
#: Seconds for which another relay is tried first: after this one was slower or away, and after it said that it is stopping.
AVOID_SECONDS, DRAINING_SECONDS = 10.0, 60.0
#: Seconds before its end at which an admission is not used any more.
RENEW_AHEAD_SECONDS = 30.0
_STALE = (RelayAnswer.UNKNOWN_ADMISSION, RelayAnswer.EXPIRED)


def is_outdated(answer: RelayAnswer, shown: str, newest: str) -> bool:
    """Return whether a fresh admission may be answered better: the relay was restarted, the admission is over, or the ticket
    that was shown for it does not name a connector that the newest one does."""
    return answer in _STALE or (answer is RelayAnswer.NOT_ALLOWED and shown != newest)


class RelayUnavailable(RelayError):
    """A relay cannot be reached, or is not the one whose certificate is pinned."""

    code = "relay-unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(RelayAnswer.DRAINING, message)


@dataclass(slots=True)
class _Held:
    """An admission, the ticket it was given for, and the counter of its hellos: they are replaced together."""

    admission: Admission
    ticket: str = field(repr=False)
    counter: int = 0


class Leg:
    """One's own connection of a pair at a relay. `where`: family and address of the relay's UDP port, None: it has none.

    `number`: of the newest bind of it.
    """

    __slots__ = ("name", "number", "path", "where")

    def __init__(self, path: RelayPath, held: _Held, sock: socket.socket) -> None:
        self.path = path
        self.name = leg_name(held.admission.id, held.counter)
        self.number = 0
        self.where: tuple[int, Any] | None = None
        if port := held.admission.datagram_port:
            host, _, *rest = sock.getpeername()  # that very relay, where several have the name
            self.where = sock.family, (host, port, *rest)


class RelayPath:
    """One peer's way through one relay. `ticket`: gives the newest ticket for it; `clock`: the controller's time.

    `used_up`: called when a ticket was refused, a new one is needed.
    """

    def __init__(
        self,
        relay: RelayEntry,
        role: RelayRole,
        ticket: Callable[[], str],
        clock: Callable[[], float],
        used_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.relay = relay
        self._role = role
        self._ticket = ticket
        self._clock = clock
        self._used_up = used_up
        self._address = HostPort.parse(relay.address)
        self._avoid_until = 0.0
        self._held: _Held | None = None
        self._admitting = asyncio.Lock()
        self._pairing = asyncio.Semaphore(MAX_PAIRING)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE  # the digest is pinned: compared below, before anything is sent
        self._context.set_alpn_protocols(list(ADMISSION_PROTOCOLS))
        self._renewing = TaskSet(f"admission at relay {relay.id}")

    @property
    def avoided(self) -> bool:
        """Return whether another path is to be tried first."""
        return time.monotonic() < self._avoid_until

    def avoid(self, seconds: float = AVOID_SECONDS) -> None:
        """Note that another path has led to a connector sooner, or is to be taken for another reason."""
        self._avoid_until = max(self._avoid_until, time.monotonic() + seconds)

    def follow(self, relay: RelayEntry) -> None:
        """Take over another certificate of the same relay: what it has admitted stays."""
        self.relay = relay

    async def connect(self, connector: int) -> socket.socket:
        """Return a connection that the relay has joined with one of the connector's; raises RelayError.

        So many at a time, the others in turn: a relay refuses more waiting clients of one admission than its limit.
        """
        return (await self.connect_with_leg(connector))[0]

    async def connect_with_leg(self, connector: int) -> tuple[socket.socket, Leg]:
        """As connect(), with what the relay knows the connection by."""
        try:
            async with self._pairing:
                return await self._pair(connector)
        except RelayUnavailable:
            self.avoid()
            raise
        except RelayError as error:
            if error.answer is RelayAnswer.DRAINING:
                self.avoid(DRAINING_SECONDS)
            raise

    async def _pair(self, connector: int) -> tuple[socket.socket, Leg]:
        for attempt in (1, 2):
            held = await self._admitted()
            sock, leg = await self._hello(held, connector)
            try:
                await self._paired(sock, ANSWER_SECONDS)
            except RelayError as error:
                sock.close()
                if attempt == 1 and is_outdated(error.answer, held.ticket, self._ticket()):
                    if self._held is held:
                        self._held = None
                    continue
                raise
            except BaseException:
                sock.close()
                raise
            return sock, leg
        raise AssertionError("unreachable")

    async def measure(self) -> float:
        """Return the seconds of one TCP connect to the relay; raises RelayError."""
        begun = time.monotonic()
        (await self._dial()).close()
        return time.monotonic() - begun

    async def probe(self) -> float:
        """Return the seconds of one connect to the relay, which then admits this peer if it has not; raises RelayError."""
        took = await self.measure()
        await self._admitted()
        return took

    async def register(self, connector: int) -> IdleConnection:
        """Return a connection that waits at the relay for a client; raises RelayError."""
        return IdleConnection(*await self._hello(await self._admitted(), connector), self)

    async def forwards_datagrams(self) -> bool:
        """Return whether the relay has a UDP port for its peers; raises RelayError."""
        return (await self._admitted()).admission.datagram_port > 0

    def admission(self) -> Admission | None:
        """Return the admission that is in force, where there is one now: one that ends soon is renewed meanwhile."""
        held = self._held
        if (held is None or held.admission.expires_at - RENEW_AHEAD_SECONDS < self._clock()) and not len(self._renewing):
            self._renewing.start(self._renew(), "renewal")
        return None if held is None or held.admission.expires_at <= self._clock() else held.admission

    async def _renew(self) -> None:
        try:
            await self._admitted()
        except RelayError:
            pass  # whoever needs it asks again

    async def _hello(self, held: _Held, connector: int) -> tuple[socket.socket, Leg]:
        sock = await self._dial()
        held.counter += 1
        hello = RelayHello(self._role, held.admission.id, held.counter, connector)
        try:
            leg = Leg(self, held, sock)
            await sockets.send_all(sock, hello.sign(held.admission.key))
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise RelayUnavailable(f"relay {self.relay.address}: {error}") from error
            raise
        return sock, leg

    async def _paired(self, sock: socket.socket, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                answer = (await sockets.receive_exactly(sock, 1))[0]
        except OSError as error:
            raise RelayUnavailable(f"relay {self.relay.address}: {error!s:.120}") from error
        if answer != RelayAnswer.PAIRED:
            raise RelayError(RelayAnswer(answer) if answer in set(RelayAnswer) else RelayAnswer.NOT_ALLOWED)

    async def _dial(self) -> socket.socket:
        try:
            return await sockets.connect(self._address, CONNECT_SECONDS)
        except OSError as error:
            raise RelayUnavailable(f"cannot reach relay {self.relay.address}: {error!s:.120}") from error

    async def _admitted(self) -> _Held:
        async with self._admitting:
            if self._held is None or self._held.admission.expires_at - RENEW_AHEAD_SECONDS < self._clock():
                self._held = await self._admit()
            return self._held

    async def _admit(self) -> _Held:
        sock = await self._dial()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                name = certificate_name(self.relay.certificate_sha256)
                stream = TlsStream(sock, self._context, server_side=False, server_name=name)
                await stream.handshake()
                digest = certificate_digest(stream.peer_certificate)
                if not signing.same(digest, self.relay.certificate_sha256):
                    raise RelayUnavailable(f"relay {self.relay.address} is not the one the controller named")
                ticket = self._ticket()
                await stream.write(encode_ticket(ticket))
                first = await stream.read_exactly(1)
                if first[0] == RelayAnswer.TICKET_REFUSED:
                    self._used_up()
                if first[0] != RelayAnswer.PAIRED:
                    known = first[0] in set(RelayAnswer)
                    raise RelayError(RelayAnswer(first[0]) if known else RelayAnswer.NOT_ALLOWED)
                left = admitted_bytes(stream.protocol) - 1
                return _Held(parse_admission(first + await stream.read_exactly(left)), ticket)
        except (OSError, ssl.SSLError, ProtocolError) as error:
            raise RelayUnavailable(f"relay {self.relay.address}, admission: {error!s:.120}") from error
        finally:
            sock.close()

    def forget_admission(self) -> None:
        """Ask for a fresh admission at the next use."""
        self._held = None


class IdleConnection:
    """A connector's connection that waits at a relay, which knows it by `leg`."""

    __slots__ = ("_path", "leg", "sock")

    def __init__(self, sock: socket.socket, leg: Leg, path: RelayPath) -> None:
        self.sock = sock
        self.leg = leg
        self._path = path

    async def paired(self) -> socket.socket:
        """Wait, however long, until a client was joined; raises RelayError."""
        try:
            await self._path._paired(self.sock, None)
        except RelayError as error:
            if error.answer in _STALE:
                self._path.forget_admission()
            self.sock.close()
            raise
        except BaseException:
            self.sock.close()
            raise
        return self.sock
