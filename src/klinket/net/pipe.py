"""A sealed pipe on a raw non-blocking socket: single frames, and the hand-over to the pump for a flow's bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from weakref import WeakSet

from klinket.domain.errors import ProtocolError
from klinket.net import datagram_path, forks, sockets
from klinket.net.pipe_receiver import Frame, PipeReceiver
from klinket.net.poll import forget, poll, tell
from klinket.net.turns import Turns
from klinket.wire import pipe as wire
from klinket.wire.link import RANDOM_BYTES, Entropy, Link
from klinket.wire.pipe import FrameType, PipeKeys, Purpose

#: Bytes read at once while single frames are waited for: so much, sealed, may be here behind one that has to be thought about.
READ_BYTES = 65_536


class SealedPipe:
    """One pipe of a link. After an error, or abort(), it is dead for good."""

    __slots__ = (
        "__weakref__", "_prefix", "_readable", "_turns", "_writable", "closed", "flow", "purpose", "receiver", "sealer",
        "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, keys: PipeKeys, purpose: Purpose, prefix: bytes = b"") -> None:
        """`prefix`: bytes that go out in front of the first frame, in the same write (the client's hello)."""
        self.sock = sock
        self.sealer = keys.sealer
        self.receiver = PipeReceiver(keys.opener)
        self.purpose = purpose
        self.closed = False
        #: The id of the flow that a client has asked for on it last.
        self.flow = b""
        self._prefix = prefix
        self._turns: Turns | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        _LIVE.add(self)

    async def send(self, type: FrameType, content: bytes = b"") -> None:
        """Seal and send one frame; raises OSError, after which the pipe is dead."""
        if self._turns is not None and self._turns.taken:
            async with self._turns:
                await self._send_rest(memoryview(self._sealed(type, content)))
            return
        # Nearly always the socket takes all of it at once: nobody can come between, so there are no turns to take.
        data = self._sealed(type, content)
        try:
            sent = self._send_now(data)
        except BaseException:
            self.abort()
            raise
        if sent < len(data):
            if self._turns is None:
                self._turns = Turns()
            async with self._turns:
                await self._send_rest(memoryview(data)[sent:])

    async def _send_rest(self, left: memoryview) -> None:
        try:
            while left := left[self._send_now(left) :]:
                await self._until_writable()
        except BaseException:
            self.abort()  # part of a frame may be out: nothing may follow it
            raise

    def _sealed(self, type: FrameType, content: bytes) -> bytes:
        if self.closed:
            raise ConnectionResetError("the pipe is closed")
        data = self.sealer.seal(type, content)
        if self._prefix:
            data, self._prefix = self._prefix + data, b""
        return data

    def send_now(self, type: FrameType, content: bytes = b"") -> bool:
        """Send one frame without waiting; False when the socket does not take it whole, and the pipe is dead then."""
        if self.closed or (self._turns is not None and self._turns.taken):
            return False
        try:
            data = self._sealed(type, content)
            if self._send_now(data) == len(data):
                return True
        except OSError:
            pass
        self.abort()
        return False

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    async def _until_writable(self) -> None:
        watches = poll()
        self._writable = watches.loop.create_future()
        watches.add_writer(self.sock, tell, self._writable)
        try:
            await self._writable
        finally:
            self._writable = None
            if not self.closed:
                watches.remove_writer(self.sock)
        if self.closed:
            raise ConnectionResetError("the pipe is closed")

    async def receive(self) -> Frame:
        """Return the next frame; raises ConnectionError at the end of the stream and ProtocolError.

        abort() and close() end the wait at once.
        """
        try:
            frame = self.receiver.open()
            while frame is None:
                if self.closed:
                    raise ConnectionResetError("the pipe is closed")
                # Mostly nothing is there yet: asking the socket first would be a call in vain for each frame.
                await self._until_readable()
                if self.closed:
                    raise ConnectionResetError("the pipe is closed")
                try:
                    data = self.sock.recv(READ_BYTES)
                except (BlockingIOError, InterruptedError):
                    continue
                if not data:
                    raise ConnectionResetError("the peer closed the pipe")
                frame = self.receiver.open_only(data)
            return frame
        except (OSError, ProtocolError):
            self.abort()
            raise

    async def _until_readable(self) -> None:
        watches = poll()
        self._readable = watches.loop.create_future()
        watches.add_reader(self.sock, tell, self._readable)
        try:
            await self._readable
        finally:
            self._readable = None
            if not self.closed:
                watches.remove_reader(self.sock)

    def _end(self) -> None:
        """End the waits for the socket: nothing may watch it any more when it is closed."""
        self.closed = True
        self.receiver.release()
        forget(self.sock)
        if self._readable is not None:
            tell(self._readable)
        if self._writable is not None:
            tell(self._writable)

    def abort(self) -> None:
        """Close with RST: nothing that was not sent goes out any more."""
        if not self.closed:
            self._end()
            sockets.reset(self.sock)

    def forget_keys(self) -> None:
        """Seal and open nothing any more."""
        self.sealer.forget()
        self.receiver.forget_key()

    def hand_over(self) -> tuple[bytes, bytes]:
        """Return the keys' state and the bytes that were received and not opened; raises ConnectionResetError without keys.

        Another process goes on with the pipe: here it seals and opens nothing until it is taken over again.
        """
        keys = self.sealer.hand_over()
        opener, left = self.receiver.hand_over()
        return keys + opener, left

    def take_over(self, sock: socket.socket, keys: bytes, left: bytes) -> None:
        """Go on with a pipe that was handed over."""
        self.sock = sock
        self.sealer = wire.Sealer.resumed(keys[: wire.STATE_BYTES])
        self.receiver.take_over(wire.Opener.resumed(keys[wire.STATE_BYTES :]), left)

    def forked(self) -> None:
        """Forget keys and socket in a child process. The loop's watch is the parent's too: it stays."""
        self.forget_keys()
        self.closed = True
        self.sock.close()

    async def finish(self, seconds: float) -> None:
        """Send the end and read what still comes, for so long at the most, then close.

        With unread bytes a close resets the connection, and the peer may lose what was sent last.
        """
        if self.closed:
            return
        try:
            self.sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(seconds):
                while await sockets.receive(self.sock, READ_BYTES):
                    pass
        except OSError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close after what was sent has gone out."""
        if not self.closed:
            self._end()
            self.sock.close()


#: The pipes of this process.
_LIVE: WeakSet[SealedPipe] = WeakSet()


class _LivePipes:
    """All pipes as one holder: thousands would each take a place of their own there."""

    def forked(self) -> None:
        """Implements forks.Holder."""
        for pipe in list(_LIVE):
            pipe.forked()


_LIVE_PIPES = _LivePipes()
forks.watch(_LIVE_PIPES)


def forget_all_keys() -> None:
    """Let no pipe or datagram path of this process seal anything more: a copy of it may be sealing under the same nonces."""
    for pipe in list(_LIVE):
        pipe.forget_keys()
    datagram_path.forget_all()
    for forget_there in _ELSEWHERE:
        forget_there()


#: Make other processes forget the keys of pipes that they were handed.
_ELSEWHERE: list[Callable[[], None]] = []


def forget_with(forget: Callable[[], None]) -> None:
    """Have `forget` called by forget_all_keys as well."""
    _ELSEWHERE.append(forget)


def resumed_pipe(sock: socket.socket, keys: bytes, left: bytes) -> SealedPipe:
    """Return a pipe for flows that another process has handed over."""
    directions = wire.Sealer.resumed(keys[: wire.STATE_BYTES]), wire.Opener.resumed(keys[wire.STATE_BYTES :])
    pipe = SealedPipe(sock, wire.PipeKeys(*directions), Purpose.FLOW)
    pipe.receiver.take_over(directions[1], left)
    return pipe


async def open_pipe(sock: socket.socket, link: Link, purpose: Purpose, entropy: Entropy) -> SealedPipe:
    """Return the client's end of a new pipe; its hello goes out with the first frame. Raises OSError, ProtocolError."""
    connector_random = wire.parse_greeting(await sockets.receive_exactly(sock, wire.GREETING_BYTES))
    client_random = entropy(RANDOM_BYTES)
    keys = wire.client_keys(link, purpose, client_random, connector_random)
    return SealedPipe(sock, keys, purpose, wire.hello(purpose, link.handle, client_random))


async def greet(sock: socket.socket, entropy: Entropy) -> bytes:
    """Send the connector's greeting on an idle connection; returns its random."""
    connector_random = entropy(RANDOM_BYTES)
    await sockets.send_all(sock, wire.greeting(connector_random))
    return connector_random


async def accept_pipe(sock: socket.socket, connector_random: bytes, lookup: wire.LinkLookup) -> SealedPipe | bytes:
    """Return the connector's end of a pipe, or the first bytes of a TLS handshake when a link is to be made instead.

    Raises ProtocolError for an unknown handle: only one key is ever tried.
    """
    first = await sockets.receive_exactly(sock, 1)
    if first[0] == wire.TLS_HANDSHAKE:
        return first
    rest = await sockets.receive_exactly(sock, wire.HELLO_BYTES - 1)
    purpose, handle, client_random = wire.parse_hello(first + rest)
    link = lookup(handle)
    if link is None:
        raise ProtocolError("a pipe of a link that is not known here")
    return SealedPipe(sock, wire.connector_keys(link, purpose, client_random, connector_random), purpose)
