"""Local proxies for programs that can be told of one: HTTP CONNECT and SOCKS5.

Honest: the answer is given when the resource has answered, and says what it said. On loopback every user of this machine may use
them; elsewhere, or where a token is set, whoever shows the token.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from klinket.client.capture import direct, http_connect, socks5
from klinket.client.ports import CarriedFlow, FlowOpener
from klinket.domain.errors import FlowRefused, InvalidInput, ProtocolError
from klinket.domain.flow import Destination
from klinket.domain.newcomers import Newcomers
from klinket.net import sockets
from klinket.net.deadlines import within
from klinket.net.poll import readable
from klinket.net.sockets import HostPort
from klinket.net.sources import source_of
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Seconds for a program to say what it wants.
REQUEST_SECONDS = 10.0
#: Connections of programs at a time, per listener.
MAX_CONNECTIONS = 16_384
#: Of them those that have not said what they want, in all and of one source; the oldest of it, or of the biggest, gives way.
MAX_UNASKED, MAX_UNASKED_PER_SOURCE = 2_048, 1_024
#: Connections accepted in one go.
ACCEPT_ROUNDS = 64
#: Bytes read at once while a head is incomplete.
_READ_BYTES = 4096

#: A flow for a program that was told of it, and what the program has sent behind its request.
Begun = tuple[CarriedFlow, bytes]
#: Speaks with a program, and calls once it has said what it wants; returns None where it gets no flow.
Speak = Callable[["Proxy", socket.socket, Callable[[], object]], Awaitable[Begun | None]]
Told = Callable[[Destination, FlowRefused], None]


def tell_log(destination: Destination, error: FlowRefused) -> None:
    """Log a refused flow."""
    logger.warning("%s: %s: %s", destination, error.failure.value, error)


class Proxy:
    """A listener. `others_direct`: what is not granted is dialled from this machine instead of being refused.

    `token`: what programs must show; None: nothing, and it listens on loopback only. `opening`: opens flows, and tells of refused
    ones, in another way than this.
    """

    def __init__(
        self,
        client: FlowOpener,
        speak: Speak,
        *,
        others_direct: bool = False,
        told: Told = tell_log,
        token: str | None = None,
        opening: Callable[[Destination], Awaitable[CarriedFlow]] | None = None,
    ) -> None:
        self._opening = opening
        self.token = token
        self._client = client
        self._speak = speak
        self._others_direct = others_direct
        self._told = told
        self._tasks = TaskSet("proxy")
        #: What is carried: nobody waits for it.
        self._carried: set[CarriedFlow] = set()
        #: Connections that have not said what they want.
        self._unasked: Newcomers[asyncio.Task[None]] = Newcomers()
        self._listener: socket.socket | None = None

    def listen(self, address: HostPort) -> HostPort:
        """Begin to accept; returns the address with the port it got. Raises InvalidInput when it is not loopback, OSError."""
        if self.token is None and not is_loopback(address.host):
            raise InvalidInput(
                "address",
                f"{address}: without a token klinket listens on loopback only",
                hint="use 127.0.0.1, or --proxy-token-file",
            )
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return self.serve(socket.create_server((address.host, address.port), family=family, backlog=1024))

    def serve(self, listener: socket.socket) -> HostPort:
        """Begin to accept from a listening socket, which is taken over; returns its address."""
        self._listener = listener
        listener.setblocking(False)
        self._tasks.start(self._accept(listener), "accept")
        host, port = listener.getsockname()[:2]
        return HostPort(host, port)

    async def _accept(self, listener: socket.socket) -> None:
        for number in itertools.count(1):
            if number % ACCEPT_ROUNDS == 0:
                await asyncio.sleep(0)  # those accepted have their turn
            try:
                program, where = listener.accept()
            except (BlockingIOError, InterruptedError):
                await readable(listener)
                continue
            except OSError as error:
                logger.error("accept: %s", error)
                await asyncio.sleep(0.1)
                continue
            if len(self._tasks) + len(self._carried) > MAX_CONNECTIONS:
                logger.warning("more than %d connections at a time: refused", MAX_CONNECTIONS)
                sockets.reset(program)
                continue
            program.setblocking(False)  # the rest of what a flow needs is set by whoever carries it
            source = source_of(str(where[0]))
            gives_way = self._unasked.make_room(source, MAX_UNASKED, MAX_UNASKED_PER_SOURCE)
            if gives_way is not None:
                gives_way[1].cancel()
            self._unasked.add(source, self._tasks.start(self._serve(program, source), "program"))

    async def _serve(self, program: socket.socket, source: str) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        begun: Begun | None = None
        try:
            begun = await self._speak(self, program, partial(self._unasked.remove, source, serving))
        except (OSError, TimeoutError) as error:
            logger.debug("a program went away: %s", error)
        finally:
            self._unasked.remove(source, serving)
            if begun is None and program.fileno() >= 0:
                program.close()
        if begun is not None:
            await self._carry(*begun, program)

    async def _carry(self, flow: CarriedFlow, early: bytes, program: socket.socket) -> None:
        """Begin to carry a flow, which goes on by itself."""
        self._carried.add(flow)
        try:
            await flow.begin(program, early, self._carried.discard)
        except BaseException:
            self._carried.discard(flow)
            raise

    async def open(self, destination: Destination) -> CarriedFlow:
        """Open a flow for a program; raises FlowRefused, which was told."""
        if self._opening is not None:
            return await self._opening(destination)
        try:
            return await direct.open_flow(self._client, destination, others_direct=self._others_direct)
        except FlowRefused as error:
            self._told(destination, error)
            raise

    async def aclose(self) -> None:
        """Stop listening and reset what is still going on."""
        await self._tasks.aclose()
        for flow in list(self._carried):
            flow.abort()
        if self._listener is not None:
            self._listener.close()


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def speak_http(proxy: Proxy, program: socket.socket, asked: Callable[[], object]) -> Begun | None:
    """Serve one connection of the HTTP proxy."""
    loop = asyncio.get_running_loop()
    received = b""
    async with asyncio.timeout(REQUEST_SECONDS):
        while (end := received.find(b"\r\n\r\n")) < 0:
            more = await loop.sock_recv(program, _READ_BYTES)
            received += more
            if not more:
                return None
            if len(received) > http_connect.MAX_HEAD_BYTES:
                await loop.sock_sendall(program, http_connect.bad_request("the request head is too long"))
                return None
    asked()
    head, early = received[: end + 4], received[end + 4 :]
    if proxy.token is not None and not http_connect.shows(head, proxy.token):
        await loop.sock_sendall(program, http_connect.token_wanted())
        return None
    try:
        request = http_connect.parse_head(head)
    except ProtocolError as error:
        await loop.sock_sendall(program, http_connect.bad_request(error.message))
        return None
    try:
        flow = await proxy.open(request.destination)
    except FlowRefused as error:
        await loop.sock_sendall(program, http_connect.refusal(error))
        return None
    answer = b"" if request.forward else http_connect.ESTABLISHED
    await _tell(flow, program, answer)
    return flow, request.forward + early


async def speak_socks(proxy: Proxy, program: socket.socket, asked: Callable[[], object]) -> Begun | None:
    """Serve one connection of the SOCKS5 proxy."""
    talk = _SocksTalk(program)
    destination = talk.whole_request() if proxy.token is None else None
    if destination is None:
        try:
            with within(REQUEST_SECONDS):
                destination = await _socks_destination(talk, proxy.token)
        except ProtocolError as error:
            logger.debug("SOCKS: %s", error.message)
    asked()
    if destination is None:
        await talk.flush()
        return None
    try:
        flow = await proxy.open(destination)
    except FlowRefused as error:
        talk.say(socks5.refusal(error))
        await talk.flush()
        return None
    talk.say(socks5.reply(socks5.Reply.SUCCEEDED))
    await _tell(flow, program, talk.unsaid)
    return flow, talk.rest


class _SocksTalk:
    """What a program has sent, and what it is told: answers go out when more of it is waited for, so seldom one by one."""

    def __init__(self, program: socket.socket) -> None:
        self._program = program
        self.rest = b""
        self.unsaid = b""

    def whole_request(self) -> Destination | None:
        """Return what is wanted where all of it is here already, as it mostly is; raises OSError."""
        try:
            self.rest = self._program.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return None
        found = socks5.whole_request(self.rest)
        if found is None:
            return None
        destination, length = found
        self.rest = self.rest[length:]
        self.say(socks5.NO_AUTHENTICATION)
        return destination

    async def read(self, count: int) -> bytes:
        """Return exactly `count` bytes; raises OSError."""
        while len(self.rest) < count:
            await self.flush()
            more = await sockets.receive(self._program, _READ_BYTES)
            if not more:
                raise ConnectionResetError("the program closed the connection")
            self.rest += more
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def say(self, answer: bytes) -> None:
        """Answer with the next that goes out."""
        self.unsaid += answer

    async def flush(self) -> None:
        """Send what was said; raises OSError."""
        if self.unsaid:
            unsaid, self.unsaid = self.unsaid, b""
            await sockets.send_all(self._program, unsaid)


async def _socks_destination(talk: _SocksTalk, token: str | None) -> Destination | None:
    """Return what is wanted, or None after an answer that refuses; raises ProtocolError."""
    version, count = await talk.read(2)
    if version != socks5.VERSION:
        raise ProtocolError(f"version {version}")
    if not await _socks_admitted(talk, await talk.read(count), token):
        return None
    version, command, _, kind = await talk.read(socks5.REQUEST_HEAD_BYTES)
    if version != socks5.VERSION:
        raise ProtocolError(f"version {version}")
    if command != socks5.CONNECT:
        talk.say(socks5.reply(socks5.Reply.COMMAND_NOT_SUPPORTED))
        return None
    first = (await talk.read(1))[0]
    try:
        rest = await talk.read(socks5.address_length(kind, first))
        return socks5.parse_destination(kind, first, rest)
    except ProtocolError:
        talk.say(socks5.reply(socks5.Reply.ADDRESS_NOT_SUPPORTED))
        return None


async def _socks_admitted(talk: _SocksTalk, methods: bytes, token: str | None) -> bool:
    """Return whether the program may go on: it offers to go without authentication, or shows the token where there is one."""
    offered = socks5.accepts_no_authentication(methods) if token is None else socks5.offers_password(methods)
    if not offered:
        talk.say(socks5.NO_METHOD)
        return False
    if token is None:
        talk.say(socks5.NO_AUTHENTICATION)
        return True
    talk.say(socks5.PASSWORD)
    version, length = await talk.read(2)
    if version != socks5.PASSWORD_VERSION:
        raise ProtocolError(f"version {version} of a user name and password")
    await talk.read(length)
    password = await talk.read((await talk.read(1))[0])
    taken = socks5.shows(password, token)
    talk.say(socks5.PASSWORD_TAKEN if taken else socks5.PASSWORD_REFUSED)
    return taken


async def _tell(flow: CarriedFlow, program: socket.socket, answer: bytes) -> None:
    """Tell a program of its flow; one that cannot be told gets none."""
    try:
        if answer:
            await sockets.send_all(program, answer)
    except BaseException:
        flow.abort()
        raise
