"""Accepts connections, reads tickets and hellos, and performs what the core decides."""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from klinket.domain.newcomers import Newcomers
from klinket.net import sockets
from klinket.net.descriptors import raise_limit
from klinket.net.sockets import HostPort
from klinket.net.sources import source_of
from klinket.net.splice import KernelPipes, Pair
from klinket.net.tasks import TaskSet
from klinket.net.tls import TlsStream
from klinket.relay.core import Output, Paired, RelayCore
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.limits import RelayLimits
from klinket.relay.sharing import DESCRIPTORS_PER_PAIR, PairSharing
from klinket.relay.traffic import RelayTraffic
from klinket.wire.relay import (
    ADMISSION_PROTOCOLS,
    HELLO_BYTES,
    MAX_TICKET_BYTES,
    TLS_HANDSHAKE,
    VERSION,
    RelayAnswer,
    RelayError,
)

logger = logging.getLogger(__name__)

#: Connections accepted in one go.
ACCEPT_ROUNDS = 64
#: Seconds for which nothing is accepted after an accept that failed, mostly for want of file descriptors.
ACCEPT_PAUSE_SECONDS = 0.1
#: Seconds between complaints about that.
TELL_SECONDS = 10.0
#: Seconds between looks for waiting connections that have gone, and for idle pairs.
SWEEP_SECONDS = 2.0


class RelayServer:
    """The sockets of one relay, but the one for datagrams. `clock`: seconds since the epoch at the controller."""

    def __init__(
        self,
        core: RelayCore,
        context: ssl.SSLContext,
        limits: RelayLimits,
        clock: Callable[[], float],
        sharing: PairSharing | None = None,
    ) -> None:
        self._core = core
        self._context = context
        self._limits = limits
        self._clock = clock
        self._tasks = TaskSet("relay")
        self.traffic = RelayTraffic()
        #: Hears of pairs, where datagrams of theirs are forwarded; at the UDP port that admissions tell, 0: none.
        self.forwarding: DatagramForwarding | None = None
        self.datagram_port = 0
        self._pipes = KernelPipes()
        self._waiting: dict[int, socket.socket] = {}
        self._pairs: dict[Pair, Paired] = {}
        #: Connections whose hello is not complete, and who reads it.
        self._hellos: Newcomers[socket.socket] = Newcomers()
        self._saying_hello: dict[socket.socket, asyncio.Task[None]] = {}
        self._listener: socket.socket | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._tell_again_at = 0.0
        descriptors = raise_limit() - limits.spare_descriptors
        # Hellos have files of their own: silent connections take none from pairs, and pairs none from who comes.
        self._max_hellos = max(4, min(limits.max_hellos, descriptors // 4))
        left = descriptors - self._max_hellos
        # A quarter is for connections that wait.
        own = max(6, left * 3 // 4 // DESCRIPTORS_PER_PAIR)
        self._max_connections = left // 4 + 2 * own
        self._sharing = sharing
        if sharing is not None:
            sharing.kept = own * 3 // 4
        core.pairs.capacity = min(limits.max_pairs, own + (sharing.capacity if sharing is not None else 0))

    @property
    def pairs(self) -> int:
        """Return how many pairs are joined."""
        return len(self._pairs)

    def received(self) -> Iterator[tuple[int, int]]:
        """Yield how many bytes each pair that is joined has received: from its client, from its connector."""
        return (pair.received() for pair in self._pairs)

    @property
    def _own_pairs(self) -> int:
        """Return how many pairs have their files in this process."""
        return len(self._pairs) - (self._sharing.given if self._sharing is not None else 0)

    def listen(self, address: HostPort) -> int:
        """Begin to accept connections; returns the port."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._listener = socket.create_server((address.host, address.port), family=family, backlog=4096)
        self._listener.setblocking(False)
        self._resume_accepting()
        self._tasks.start(self._sweep(), "sweep")
        return int(self._listener.getsockname()[1])

    def use(self, context: ssl.SSLContext) -> None:
        """Show another certificate from now on."""
        self._context = context

    def drain(self) -> None:
        """Send everybody away who waits or comes, with DRAINING; pairs go on."""
        self._perform(self._core.drain())

    async def aclose(self) -> None:
        """Stop accepting and close everything."""
        if self._resume is not None:
            self._resume.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        await self._tasks.aclose()
        for sock in self._waiting.values():
            sockets.reset(sock)
        for pair in list(self._pairs):
            pair.reset()
        if self._sharing is not None:
            self._sharing.close()

    # ---- accepting

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPT_ROUNDS):
            try:
                sock, where = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause_accepting(error)
                return
            source = source_of(str(where[0]))
            if len(self._waiting) + 2 * self._own_pairs >= self._max_connections:
                self.traffic.refused[RelayAnswer.LIMIT] += 1
                _answer_and_close(sock, RelayAnswer.LIMIT)
                continue
            gives_way = self._hellos.make_room(source, self._max_hellos, self._limits.max_hellos_per_address)
            if gives_way is not None:
                oldest = gives_way[1]
                self._saying_hello.pop(oldest).cancel()
                _answer(oldest, RelayAnswer.LIMIT)
            sockets.prepare(sock)
            self._hellos.add(source, sock)
            self._saying_hello[sock] = self._tasks.start(self._begin(sock, source), "hello")

    def _pause_accepting(self, error: OSError) -> None:
        """Look away for a moment: the connection that could not be accepted still waits, and would call at once again."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        if loop.time() >= self._tell_again_at:
            self._tell_again_at = loop.time() + TELL_SECONDS
            logger.error("relay cannot accept: %s; raise the limit of open files", error.strerror)
        loop.remove_reader(self._listener)
        self._resume = loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume_accepting)

    def _resume_accepting(self) -> None:
        assert self._listener is not None
        self._resume = None
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _begin(self, sock: socket.socket, source: str) -> None:
        """Read a connection's first message within its time; hand it on, or close it."""
        kept = False
        try:
            async with asyncio.timeout(self._limits.hello_seconds):
                first = await sockets.receive_exactly(sock, 1)
                if first[0] == TLS_HANDSHAKE:
                    await self._admit(sock, first)
                elif first[0] == VERSION:
                    hello = first + await sockets.receive_exactly(sock, HELLO_BYTES - 1)
                    outputs = self._core.hello(sock.fileno(), hello, self._clock())
                    self._waiting[sock.fileno()] = sock
                    kept = True
                    self._perform(outputs)
        except (OSError, ssl.SSLError, RelayError) as error:
            logger.debug("relay: a connection from %s ended: %s", source, type(error).__name__)
        except Exception as error:
            # Includes ProtocolError and InvalidToken: that connection ends, nothing else.
            logger.info("relay: a connection from %s was refused: %s", source, error)
        finally:
            self._hellos.remove(source, sock)
            self._saying_hello.pop(sock, None)
            if not kept:
                sock.close()

    async def _admit(self, sock: socket.socket, received: bytes) -> None:
        stream = TlsStream(sock, self._context, server_side=True, received=received)
        await stream.handshake()
        protocol = stream.protocol
        if protocol not in ADMISSION_PROTOCOLS:
            return
        length = int.from_bytes(await stream.read_exactly(2), "big")
        if not 0 < length <= MAX_TICKET_BYTES:
            return
        ticket = (await stream.read_exactly(length)).decode("ascii", "replace")
        try:
            admission = replace(self._core.admit(ticket, self._clock()), datagram_port=self.datagram_port)
            answer = admission.encode(protocol)
            self.traffic.admissions += 1
        except RelayError as error:
            answer = bytes((error.answer,)) + error.message.encode()
            self.traffic.refused[error.answer] += 1
            logger.info("relay: no admission: %s", error.message)
        except Exception as error:
            answer = bytes((RelayAnswer.TICKET_REFUSED,)) + str(error).encode()[:200]
            self.traffic.refused[RelayAnswer.TICKET_REFUSED] += 1
            logger.info("relay: a ticket was refused: %s", error)
        await stream.write(answer)
        await stream.close()

    # ---- pairing

    def _perform(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            if isinstance(output, Paired):
                self._join(self._waiting.pop(output.client), self._waiting.pop(output.connector), output)
            else:
                self.traffic.refused[output.answer] += 1
                sock = self._waiting.pop(output.peer, None)
                if sock is not None:
                    _answer_and_close(sock, output.answer)

    def _join(self, client: socket.socket, connector: socket.socket, paired: Paired) -> None:
        try:
            connector.send(bytes((RelayAnswer.PAIRED,)))
            client.send(bytes((RelayAnswer.PAIRED,)))
        except OSError:
            sockets.reset(client)
            sockets.reset(connector)
            self._core.pair_ended(paired.holder)
            return
        if self.forwarding is not None:
            self.forwarding.joined(paired.holder, paired.legs)
        pair = Pair(client, connector, self._pipes, self._pair_ended)
        self._pairs[pair] = paired
        self.traffic.pairs += 1
        pair.start()
        if self._sharing is not None:
            self._sharing.attend(pair)

    def _pair_ended(self, pair: Pair) -> None:
        paired = self._pairs.pop(pair)
        self._core.pair_ended(paired.holder)
        self.traffic.pair_ended(pair.received())
        if self.forwarding is not None:
            self.forwarding.parted(paired.legs)

    async def _sweep(self) -> None:
        """Drop waiting connections that have gone or waited too long, and pairs that moved nothing for very long."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            poll = select.poll()
            for descriptor in self._waiting:
                poll.register(descriptor, select.POLLRDHUP)
            for descriptor, _ in poll.poll(0):
                self._core.gone(descriptor)
                self._waiting.pop(descriptor).close()
            self._perform(self._core.deadline_reached(self._clock()))
            if self.forwarding is not None:
                self.forwarding.end_stale()
            oldest = asyncio.get_running_loop().time() - self._limits.pair_idle_seconds
            for pair in list(self._pairs):
                if pair.moved_at < oldest:
                    pair.reset()


def _answer(sock: socket.socket, answer: RelayAnswer) -> None:
    try:
        sock.setblocking(False)
        sock.send(bytes((answer,)))
    except OSError:
        pass


def _answer_and_close(sock: socket.socket, answer: RelayAnswer) -> None:
    _answer(sock, answer)
    sock.close()
