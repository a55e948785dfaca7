"""Captured DNS queries: klinket's names are answered here, all others by the resolver they were sent to.

The answer comes from the address that was asked, so neither programs nor the system's resolvers notice anything.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from klinket.client.capture import dns_message, packets
from klinket.client.capture.answers import send
from klinket.client.capture.datagrams import original_destination
from klinket.client.capture.host import rules
from klinket.client.capture.host.addresses import STUBS
from klinket.client.capture.packets import Endpoint
from klinket.client.capture.resolver import Later, OwnAnswers, accept, forward, serve_connection
from klinket.domain.errors import ProtocolError
from klinket.net.tasks import TaskSet
from klinket.wire.dns import Code

logger = logging.getLogger(__name__)

#: Queries over UDP at a time that are asked of others, of all and of one source address; further ones get SERVFAIL.
MAX_QUERIES = 2048
MAX_QUERIES_PER_SOURCE = 1024
#: TCP connections at a time; for a further one the connection is closed that has been idle for longest.
MAX_CONNECTIONS = 512
DNS_PORT = 53
#: Datagrams read in one turn of the loop.
BATCH = 64


class CapturedNames:
    """Serves the DNS sockets of one family, which are taken over. `resolvers`: the system's, for who asks the stub itself."""

    def __init__(
        self,
        sock: socket.socket,
        raw: socket.socket,
        listener: socket.socket,
        own: OwnAnswers,
        resolvers: Callable[[], Sequence[str]],
        is_granted: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`is_granted`: says of a resolver whether it is a resource itself, and is asked through klinket."""
        self._is_granted = is_granted
        self._sock = sock
        self._raw = raw
        self._listener = listener
        self._own = own
        self._resolvers = resolvers
        self._tasks = TaskSet("names")
        self._queries: Counter[str] = Counter()
        self._connections: dict[socket.socket, asyncio.Task[None]] = {}
        self._idle: dict[socket.socket, None] = {}
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin."""
        for sock in (self._sock, self._raw, self._listener):
            sock.setblocking(False)
        self._loop.add_reader(self._sock, self._readable)
        self._tasks.start(accept(self._listener, self._accepted), "accept")

    def _ask_of(self, target: str) -> Sequence[str]:
        return self._resolvers() if target in STUBS else (target,)

    def _prepare(self, resolver: str, sock: socket.socket) -> None:
        if self._is_granted(resolver):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, rules.OWN_QUERY)

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                message, ancillary, _, source = self._sock.recvmsg(dns_message.MAX_MESSAGE_BYTES, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.debug("names: %s", error)
                return
            target = original_destination(ancillary)
            if target is None or target[1] != DNS_PORT:
                continue  # sent to this socket itself
            if isinstance(answer := self._own.answer(message), bytes):
                self._reply(answer, target, source[:2])
            elif self._queries.total() < MAX_QUERIES and self._queries[source[0]] < MAX_QUERIES_PER_SOURCE:
                self._queries[source[0]] += 1
                later = answer or partial(self._ask_others, message, target)
                task = self._tasks.start(self._reply_later(later, target, source[:2]), "query")
                task.add_done_callback(partial(self._asked, source[0]))
            else:
                self._reply(_failure(message), target, source[:2])

    def _reply(self, answer: bytes, target: Endpoint, source: Endpoint) -> None:
        try:
            if answer:
                send(self._raw, packets.datagram(target, source, answer), source)
        except (OSError, ValueError) as error:
            logger.debug("names: %s", error)  # as datagrams are: the program asks again

    async def _reply_later(self, later: Later, target: Endpoint, source: Endpoint) -> None:
        self._reply(await later(), target, source)

    async def _ask_others(self, message: bytes, target: Endpoint) -> bytes:
        return await forward(message, self._ask_of(target[0]), over_tcp=False, prepare=self._prepare)

    def _asked(self, asker: str, _: object) -> None:
        self._queries[asker] -= 1
        if not self._queries[asker]:
            del self._queries[asker]

    def _accepted(self, connection: socket.socket) -> None:
        host, port = connection.getsockname()[:2]
        if port != DNS_PORT or (len(self._connections) >= MAX_CONNECTIONS and not self._give_way()):
            connection.close()
            return
        self._idle[connection] = None
        serving = serve_connection(
            connection, self._own, lambda: self._ask_of(host), self._prepare, lambda idle: self._turned(connection, idle)
        )
        task = self._connections[connection] = self._tasks.start(serving, "connection")
        task.add_done_callback(lambda _: self._ended(connection))

    def _give_way(self) -> bool:
        """Close the connection that has been idle for longest; returns whether there was one."""
        for connection in self._idle:
            del self._idle[connection]
            self._connections.pop(connection).cancel()  # which closes it, once the loop does not watch it any more
            return True
        return False

    def _turned(self, connection: socket.socket, idle: bool) -> None:
        self._idle.pop(connection, None)
        if idle and connection in self._connections:
            self._idle[connection] = None  # the last in the row

    def _ended(self, connection: socket.socket) -> None:
        self._connections.pop(connection, None)
        self._idle.pop(connection, None)
        connection.close()  # also of one that had not begun

    async def aclose(self) -> None:
        """Stop."""
        self._loop.remove_reader(self._sock)
        await self._tasks.aclose()
        for sock in (self._sock, self._raw, self._listener):
            sock.close()


def _failure(message: bytes) -> bytes:
    try:
        return dns_message.answer_code(dns_message.parse_query(message), Code.SERVER_FAILURE)
    except ProtocolError:
        return b""
