"""The DNS stub of a namespace: granted names get a synthetic address, all others are asked of this machine's resolvers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from klinket.client.capture import dns_message
from klinket.client.capture.dns_message import Code, Query, RecordType
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.client.ports import FlowOpener
from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.errors import InvalidInput, ProtocolError
from klinket.net.sockets import receive_exactly
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Seconds for which programs may keep a synthetic address: it never changes while the command runs.
TTL_SECONDS = 60
#: Seconds for one resolver to answer, and resolvers tried.
RESOLVER_SECONDS = 4.0
MAX_RESOLVERS = 3
#: Queries at a time; further ones are dropped, and programs ask again.
MAX_QUERIES = 512
#: Seconds an idle connection is kept.
CONNECTION_SECONDS = 10.0
#: Seconds without accepting after a connection could not be accepted.
ACCEPT_PAUSE_SECONDS = 0.1
_EMPTY = (RecordType.AAAA, RecordType.SVCB, RecordType.HTTPS)


class NameStub:
    """Serves the two DNS sockets of a namespace, which are taken over."""

    def __init__(
        self,
        sock: socket.socket,
        listener: socket.socket,
        client: FlowOpener,
        names: SyntheticAddresses,
        resolvers: Sequence[str],
        own: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`own`: names that are answered here, unless they are granted, and their addresses."""
        self._own = own
        self._sock = sock
        self._listener = listener
        self._client = client
        self._names = names
        self._resolvers = [address for address in resolvers if parse_ip(address.partition("%")[0])][:MAX_RESOLVERS]
        self._tasks = TaskSet("names")
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin."""
        self._sock.setblocking(False)
        self._listener.setblocking(False)
        self._loop.add_reader(self._sock, self._readable)
        self._tasks.start(self._accept(), "accept")

    def _readable(self) -> None:
        for _ in range(64):
            try:
                message, source = self._sock.recvfrom(dns_message.MAX_MESSAGE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.debug("names: %s", error)
                return
            if (answer := self._own_answer(message)) is not None:
                self._reply(answer, source)
            elif len(self._tasks) < MAX_QUERIES:
                self._tasks.start(self._ask_others(message, source), "query")

    def _reply(self, answer: bytes, source: tuple[str, int]) -> None:
        try:
            if answer:
                self._sock.sendto(answer, source)
        except OSError as error:
            logger.debug("names: %s", error)

    def _own_answer(self, message: bytes) -> bytes | None:
        """Return the answer to what is klinket's to say, b"" for what is no query, None for what others must be asked."""
        try:
            query = dns_message.parse_query(message)
        except ProtocolError as error:
            logger.debug("names: %s", error.message)
            return b""
        if query.dns_class != dns_message.IN:
            return None
        if (address := query.reverse_address) is not None and parse_ip(address) and address in self._names:
            name = self._names.name_of(address)
            if name is None:
                return dns_message.answer_code(query, Code.NO_SUCH_NAME)
            return dns_message.answer_name(query, name, TTL_SECONDS)
        return self._named(query)

    def _named(self, query: Query) -> bytes | None:
        try:
            name = canonical_host(query.name)
        except InvalidInput:
            return None
        ours = parse_ip(name) is None and self._client.claims(name)
        if not ours and name in self._own:
            if query.type == RecordType.A:
                return dns_message.answer_address(query, self._own[name], TTL_SECONDS)
            return dns_message.answer_code(query, Code.NO_ERROR)
        if query.type in _EMPTY:
            # Only IPv4 is captured: a program that knew an IPv6 address, or hints, would run past klinket or into nothing.
            return dns_message.answer_code(query, Code.NO_ERROR)
        if not ours:
            return None
        if query.type != RecordType.A:
            return dns_message.answer_code(query, Code.NO_ERROR)
        address = self._names.address_of(name)
        if address is None:
            return dns_message.answer_code(query, Code.SERVER_FAILURE)
        return dns_message.answer_address(query, address, TTL_SECONDS)

    # ---- others

    async def _ask_others(self, message: bytes, source: tuple[str, int]) -> None:
        self._reply(await self._forward(message, over_tcp=False), source)

    async def _forward(self, message: bytes, *, over_tcp: bool) -> bytes:
        for resolver in self._resolvers:
            try:
                async with asyncio.timeout(RESOLVER_SECONDS):
                    return await (_ask_over_tcp if over_tcp else _ask)(resolver, message)
            except OSError as error:
                logger.debug("resolver %s: %s", resolver, repr(error))
        return dns_message.answer_code(dns_message.parse_query(message), Code.SERVER_FAILURE)

    # ---- TCP

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
            except OSError as error:  # no descriptor to be had now
                logger.warning("names: accept: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            connection.setblocking(False)
            if len(self._tasks) < MAX_QUERIES:
                self._tasks.start(self._serve(connection), "connection")
            else:
                connection.close()

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while True:
                    async with asyncio.timeout(CONNECTION_SECONDS):
                        length = int.from_bytes(await receive_exactly(connection, 2))
                        message = await receive_exactly(connection, length)
                    answer = self._own_answer(message)
                    if answer is None:
                        answer = await self._forward(message, over_tcp=True)
                    if not answer:
                        return
                    await self._loop.sock_sendall(connection, len(answer).to_bytes(2) + answer)
            except OSError:
                return

    async def aclose(self) -> None:
        """Stop."""
        self._loop.remove_reader(self._sock)
        await self._tasks.aclose()
        self._sock.close()
        self._listener.close()


async def _connected(resolver: str, kind: socket.SocketKind) -> socket.socket:
    loop = asyncio.get_running_loop()
    (family, _, _, _, address), *_ = socket.getaddrinfo(resolver, 53, type=kind, flags=socket.AI_NUMERICHOST)
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    try:
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask(resolver: str, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with await _connected(resolver, socket.SOCK_DGRAM) as sock:
        await loop.sock_sendall(sock, message)
        while True:
            answer = await loop.sock_recv(sock, dns_message.MAX_MESSAGE_BYTES)
            if answer[:2] == message[:2]:
                return answer


async def _ask_over_tcp(resolver: str, message: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with await _connected(resolver, socket.SOCK_STREAM) as sock:
        await loop.sock_sendall(sock, len(message).to_bytes(2) + message)
        return await receive_exactly(sock, int.from_bytes(await receive_exactly(sock, 2)))
