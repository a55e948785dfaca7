"""The DNS stub: granted names get a synthetic address, all others are asked of this machine's resolvers."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from klinket.client.capture import dns_message
from klinket.client.capture.dns_message import ExtendedError, Query
from klinket.client.capture.synthetic import SyntheticAddresses, twin
from klinket.client.ports import FlowOpener, NameSource
from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.errors import FlowRefused, InvalidInput, ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.net import sockets
from klinket.net.sockets import receive_exactly
from klinket.net.tasks import TaskSet
from klinket.wire.dns import IN, Code, RecordType

logger = logging.getLogger(__name__)

#: Seconds for which programs may keep a synthetic address: it never changes while klinket runs.
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
_ADDRESSES = (RecordType.A, RecordType.AAAA)
_HINTS = (RecordType.SVCB, RecordType.HTTPS)


Prepare = Callable[[str, socket.socket], None]
#: An answer that takes a while, within a bound.
Later = Callable[[], Awaitable[bytes]]
Answer = bytes | Later | None


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """`ipv6`: names get an IPv6 address as well. `hides_ipv6`: nobody is told any other IPv6 address, as none is captured.

    `is_fast`: says of a name whether its connects are accepted at once. `never`: names that are always asked of others, as
    those of klinket's own controller and relays, which a wildcard may match. `own`: names that are answered here, unless they are
    granted, and their IPv4 addresses.
    """

    ipv6: bool = False
    hides_ipv6: bool = True
    is_fast: Callable[[str], bool] = lambda _: False
    never: Callable[[], Collection[str]] = tuple
    own: Mapping[str, str] = field(default_factory=dict)


class OwnAnswers:
    """Says what is klinket's to say."""

    def __init__(self, client: FlowOpener, names: SyntheticAddresses, rules: AnswerRules = AnswerRules()) -> None:
        self._client = client
        self._names = names
        self._rules = rules

    def answer(self, message: bytes, *, over_tcp: bool = False) -> Answer:
        """Return the answer to what is klinket's to say, b"" for what is no query, None for what others must be asked."""
        try:
            query = dns_message.parse_query(message)
        except ProtocolError as error:
            logger.debug("names: %s", error.message)
            return b""
        if query.dns_class != IN:
            return None
        if (address := query.reverse_address) is not None and parse_ip(address) and address in self._names:
            name = self._names.name_of(address)
            if name is None:
                return dns_message.answer_code(query, Code.NO_SUCH_NAME)
            return dns_message.answer_name(query, name, TTL_SECONDS)
        return self._named(query, over_tcp)

    def _named(self, query: Query, over_tcp: bool) -> Answer:
        try:
            name = canonical_host(query.name)
        except InvalidInput:
            return None
        reverse = query.reverse_address
        if not (self._is_ours(name) or (reverse is not None and self._is_ours_address(reverse))):
            if (own := self._rules.own.get(name)) is not None:
                if query.type == RecordType.A:
                    return dns_message.answer_address(query, own, TTL_SECONDS)
                return dns_message.answer_code(query, Code.NO_ERROR)
            # A program that knew an IPv6 address, or hints with one, would run past klinket or into nothing.
            hidden = self._rules.hides_ipv6 and query.type in (RecordType.AAAA, *_HINTS)
            return dns_message.answer_code(query, Code.NO_ERROR) if hidden else None
        source = self._client.names
        if query.type in _ADDRESSES:
            if source is None or source.is_served(name):
                return self._address(query, name)
            return partial(self._address_when_served, source, query, name)
        if source is None or query.type in _HINTS:
            return dns_message.answer_code(query, Code.NO_ERROR)  # hints with addresses would lead past klinket
        if query.type == RecordType.OPT or 128 <= query.type < 256:  # ANY, transfers and the like (RFC 6895 §3.1)
            return dns_message.answer_failure(query, ExtendedError.NOT_SUPPORTED, "ask for one type of records", Code.REFUSED)
        return partial(self._records, source, query, name, over_tcp)

    def _address(self, query: Query, name: str) -> bytes:
        if query.type == RecordType.AAAA and not self._rules.ipv6:
            return dns_message.answer_code(query, Code.NO_ERROR)
        address = self._names.address_of(name, fast=self._rules.is_fast(name))
        if address is None:
            return dns_message.answer_failure(query, ExtendedError.OTHER, "all addresses that stand for names are given")
        return dns_message.answer_address(query, twin(address) if query.type == RecordType.AAAA else address, TTL_SECONDS)

    async def _address_when_served(self, source: NameSource, query: Query, name: str) -> bytes:
        try:
            await source.until_served(name)
        except FlowRefused as error:
            return _refused(query, error)
        return self._address(query, name)

    async def _records(self, source: NameSource, query: Query, name: str, over_tcp: bool) -> bytes:
        try:
            found = await source.records(name, query.type)
        except FlowRefused as error:
            return _refused(query, error)
        if found.text:
            info = ExtendedError.PROHIBITED if found.code == Code.REFUSED else ExtendedError.NO_REACHABLE_AUTHORITY
            return dns_message.answer_failure(query, info, found.text, found.code or Code.SERVER_FAILURE)
        return dns_message.answer_records(query, found.code, found.records, min(found.seconds, TTL_SECONDS), over_tcp=over_tcp)

    def _is_ours_address(self, address: str) -> bool:
        """Return whether the name of an address is for the connector's side to tell: its name here would be told to strangers."""
        return self._client.names is not None and parse_ip(address) is not None and self._claims(address)

    def _is_ours(self, name: str) -> bool:
        return parse_ip(name) is None and name not in self._rules.never() and self._claims(name)

    def _claims(self, host: str) -> bool:
        try:
            return self._client.claims(host)
        except FlowRefused:
            return False  # not online yet: nothing was granted in this process, and the controller's own name must be found


def _refused(query: Query, error: FlowRefused) -> bytes:
    if error.failure is FlowFailure.NOT_GRANTED:
        return dns_message.answer_failure(query, ExtendedError.PROHIBITED, error.message)
    return dns_message.answer_failure(query, ExtendedError.NO_REACHABLE_AUTHORITY, error.message)


class NameStub:
    """Serves two DNS sockets, which are taken over."""

    def __init__(
        self,
        sock: socket.socket,
        listener: socket.socket,
        client: FlowOpener,
        names: SyntheticAddresses,
        resolvers: Sequence[str],
        rules: AnswerRules = AnswerRules(),
    ) -> None:
        self._sock = sock
        self._listener = listener
        self._own = OwnAnswers(client, names, rules)
        self._resolvers = usable(resolvers)
        self._tasks = TaskSet("names")
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Begin."""
        self._sock.setblocking(False)
        self._listener.setblocking(False)
        self._loop.add_reader(self._sock, self._readable)
        self._tasks.start(accept(self._listener, self._accepted), "accept")

    def _readable(self) -> None:
        for _ in range(64):
            try:
                message, source = self._sock.recvfrom(dns_message.MAX_MESSAGE_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.debug("names: %s", error)
                return
            if isinstance(answer := self._own.answer(message), bytes):
                self._reply(answer, source)
            elif len(self._tasks) < MAX_QUERIES:
                self._tasks.start(self._reply_later(answer or partial(self._ask_others, message), source), "query")

    def _reply(self, answer: bytes, source: tuple[str, int]) -> None:
        try:
            if answer:
                self._sock.sendto(answer, source)
        except OSError as error:
            logger.debug("names: %s", error)

    async def _reply_later(self, later: Later, source: tuple[str, int]) -> None:
        self._reply(await later(), source)

    async def _ask_others(self, message: bytes) -> bytes:
        return await forward(message, self._resolvers, over_tcp=False)

    def _accepted(self, connection: socket.socket) -> None:
        if len(self._tasks) < MAX_QUERIES:
            self._tasks.start(serve_connection(connection, self._own, lambda: self._resolvers), "connection")
        else:
            connection.close()

    async def aclose(self) -> None:
        """Stop."""
        self._loop.remove_reader(self._sock)
        await self._tasks.aclose()
        self._sock.close()
        self._listener.close()


def usable(resolvers: Sequence[str]) -> list[str]:
    """Return the first MAX_RESOLVERS that are addresses."""
    return [address for address in resolvers if parse_ip(address.partition("%")[0])][:MAX_RESOLVERS]


async def accept(listener: socket.socket, accepted: Callable[[socket.socket], None]) -> None:
    """Hand over each connection, for ever. A shortage of descriptors ends nothing."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = await loop.sock_accept(listener)
        except OSError as error:  # no descriptor to be had now
            logger.warning("names: accept: %s", error)
            await asyncio.sleep(ACCEPT_PAUSE_SECONDS)
            continue
        connection.setblocking(False)
        accepted(connection)


async def serve_connection(
    connection: socket.socket,
    own: OwnAnswers,
    resolvers: Callable[[], Sequence[str]],
    prepare: Prepare = lambda _, __: None,
    idle: Callable[[bool], None] = lambda _: None,
) -> None:
    """Answer the queries of one TCP connection, one after the other; closes it. `prepare`: see forward().

    `idle`: told when others are asked (False), and when the next query is waited for again (True).
    """
    loop = asyncio.get_running_loop()
    with connection:
        try:
            while True:
                async with asyncio.timeout(CONNECTION_SECONDS):
                    length = int.from_bytes(await receive_exactly(connection, 2))
                    message = await receive_exactly(connection, length)
                answer = own.answer(message, over_tcp=True)
                if not isinstance(answer, bytes):
                    idle(False)
                    ask_others = partial(forward, message, resolvers(), over_tcp=True, prepare=prepare)
                    answer = await (answer or ask_others)()
                    idle(True)
                if not answer:
                    return
                await loop.sock_sendall(connection, len(answer).to_bytes(2) + answer)
        except OSError:
            return


async def forward(
    message: bytes,
    resolvers: Sequence[str],
    *,
    over_tcp: bool,
    prepare: Prepare = lambda _, __: None,
) -> bytes:
    """Return the answer of the first resolver that gives one, byte for byte; SERVFAIL when none does.

    `prepare` gets each resolver and the socket before it is connected.
    """
    for resolver in resolvers:
        try:
            async with asyncio.timeout(RESOLVER_SECONDS):
                return await (_ask_over_tcp if over_tcp else _ask)(resolver, message, prepare)
        except OSError as error:
            logger.debug("resolver %s: %s", resolver, repr(error))
    return dns_message.answer_code(dns_message.parse_query(message), Code.SERVER_FAILURE)


async def _connected(resolver: str, kind: socket.SocketKind, prepare: Prepare) -> socket.socket:
    loop = asyncio.get_running_loop()
    (family, _, _, _, address), *_ = socket.getaddrinfo(resolver, 53, type=kind, flags=socket.AI_NUMERICHOST)
    sock = sockets.own_socket(family, kind)
    sock.setblocking(False)
    try:
        prepare(resolver, sock)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _ask(resolver: str, message: bytes, prepare: Prepare) -> bytes:
    loop = asyncio.get_running_loop()
    with await _connected(resolver, socket.SOCK_DGRAM, prepare) as sock:
        await loop.sock_sendall(sock, message)
        while True:
            answer = await loop.sock_recv(sock, dns_message.MAX_MESSAGE_BYTES)
            if answer[:2] == message[:2]:
                return answer


async def _ask_over_tcp(resolver: str, message: bytes, prepare: Prepare) -> bytes:
    loop = asyncio.get_running_loop()
    with await _connected(resolver, socket.SOCK_STREAM, prepare) as sock:
        await loop.sock_sendall(sock, len(message).to_bytes(2) + message)
        return await receive_exactly(sock, int.from_bytes(await receive_exactly(sock, 2)))
