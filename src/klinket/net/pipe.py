"""A sealed pipe on a raw non-blocking socket: single frames, and the hand-over to the pump for a flow's bytes."""

from __future__ import annotations

import asyncio
import mmap
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

from klinket.domain.errors import ProtocolError
from klinket.net import datagram_path, forks, sockets
from klinket.net.poll import forget, poll, tell
from klinket.net.scratch import RECEIVE_BYTES, SCRATCH
from klinket.wire import pipe as wire
from klinket.wire.link import RANDOM_BYTES, Entropy, Link
from klinket.wire.pipe import FrameType, PipeKeys, Purpose


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that was received."""

    type: FrameType
    content: bytes


#: Bytes of an incomplete frame that are kept by themselves while more is waited for, instead of in a receive buffer.
SMALL_PART_BYTES = 16_384
#: Bytes read at once while single frames are waited for: so much, sealed, may be here behind one that has to be thought about.
READ_BYTES = 65_536
#: Bytes of a frame from which on no more is read than its rest, and the length of the next: so frames that follow each other closely
#: lie at the same place, are never moved together, and stay in the processor's caches.
LARGE_BYTES = 65_536


class PipeReceiver:
    """Collects bytes of the socket and opens whole frames; holds a receive buffer only while it is needed.

    `incomplete_since`: monotonic seconds at which a frame began that is not there as a whole yet, or None.
    """

    __slots__ = ("_buffer", "_end", "_opener", "_part", "_start", "_view", "_wanted", "incomplete_since")

    def __init__(self, opener: wire.Opener) -> None:
        self._opener = opener
        self._buffer: mmap.mmap | None = None
        self._view: memoryview | None = None
        self._start = 0
        self._end = 0
        self._part = b""
        #: Length of the frame of which there is a part; 0 where it is not known.
        self._wanted = 0
        self.incomplete_since: float | None = None

    def forget_key(self) -> None:
        """Open nothing any more."""
        self._opener.forget()

    def hand_over(self) -> tuple[bytes, bytes]:
        """Return the opener's state and the bytes that were received and not opened; nothing is opened here any more."""
        state = self._opener.hand_over()
        self.incomplete_since = None  # whoever goes on measures anew
        left = self._part if self._view is None else bytes(self._view[self._start : self._end])
        self.release()
        return state, left

    def take_over(self, opener: wire.Opener, left: bytes) -> None:
        """Go on with what another receiver handed over; raises ProtocolError for more than it can have had."""
        if len(left) > RECEIVE_BYTES:
            raise ProtocolError(f"{len(left)} bytes were received and not opened")
        self.release()
        self._opener = opener
        self._wanted = 0
        self._part = left if len(left) <= SMALL_PART_BYTES else b""
        if not self._part and left:
            self.space()[: len(left)] = left
            self.received(len(left))

    def space(self) -> memoryview:
        """Return where the next bytes are to be received; never empty."""
        if self._buffer is None or self._view is None:
            self._buffer = SCRATCH.borrow()
            self._view = memoryview(self._buffer)
            self._start, self._end = 0, len(self._part)
            self._view[: self._end] = self._part
            self._part = b""
        whole = self._wanted + wire.HEADER_BYTES if self._wanted >= LARGE_BYTES else 0
        left = self._end - self._start
        if self._start and self._start + (whole or left + wire.MAX_CONTENT_BYTES // 2) > RECEIVE_BYTES:
            self._view[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left
        return self._view[self._end : self._start + whole if whole else RECEIVE_BYTES]

    def received(self, count: int) -> None:
        """Note that `count` bytes were written into the last space()."""
        self._end += count

    def next_frame(self) -> memoryview | None:
        """Return the next whole sealed frame, valid until the next call, or None. Raises ProtocolError."""
        if self._view is None:
            if len(self._part) < wire.HEADER_BYTES:
                return None
            self.space()  # what was set aside may hold whole frames
        assert self._view is not None
        length = wire.frame_length(self._view[self._start : self._end])
        self._wanted = length or 0
        if length is None or self._end - self._start < length:
            if self._start != self._end and self.incomplete_since is None:
                self.incomplete_since = time.monotonic()
            self.rest()
            return None
        self.incomplete_since = None
        frame = self._view[self._start : self._start + length]
        self._start += length
        return frame

    def open_in_place(self) -> tuple[int, memoryview] | None:
        """Open the next whole frame where it is; returns type and content, valid until the next space(), or None.

        More than one may be opened before that. Raises ProtocolError.
        """
        frame = self.next_frame()
        if frame is None:
            return None
        content = frame[wire.HEADER_BYTES :]
        type, size = self._opener.open_into(frame, content)
        return type, content[:size]

    def open(self) -> Frame | None:
        """Return the next whole frame, or None."""
        frame = self.next_frame()
        return None if frame is None else Frame(*self._opener.open(bytes(frame)))

    def rest(self, most: int = SMALL_PART_BYTES) -> None:
        """Give the buffer back unless more is in it: a few bytes of a frame must not hold half a mebibyte."""
        if self._end - self._start <= most and self._view is not None:
            part = bytes(self._view[self._start : self._end])
            self.release()
            self._part = part

    def release(self) -> None:
        """Give the buffer back; what was in it is gone."""
        self._part = b""
        if self._buffer is not None:
            self._view = None
            SCRATCH.give_back(self._buffer)
            self._buffer = None
            self._start = self._end = 0


class SealedPipe:
    """One pipe of a link. After an error, or abort(), it is dead for good."""

    __slots__ = (
        "__weakref__", "_prefix", "_readable", "_sending", "_writable", "closed", "flow", "purpose", "receiver", "sealer",
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
        self._sending = asyncio.Lock()
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        _LIVE.add(self)

    async def send(self, type: FrameType, content: bytes = b"") -> None:
        """Seal and send one frame; raises OSError, after which the pipe is dead."""
        async with self._sending:
            if self.closed:
                raise ConnectionResetError("the pipe is closed")
            data = self._prefix + self.sealer.seal(type, content)
            self._prefix = b""
            try:
                left = memoryview(data)[self._send_now(data) :]
                while left:
                    await self._until_writable()
                    left = left[self._send_now(left) :]
            except BaseException:
                self.abort()  # part of a frame may be out: nothing may follow it
                raise

    def send_now(self, type: FrameType, content: bytes = b"") -> bool:
        """Send one frame without waiting; False when the socket does not take it whole, and the pipe is dead then."""
        if self.closed or self._sending.locked():
            return False
        try:
            data = self._prefix + self.sealer.seal(type, content)
            self._prefix = b""
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
            while True:
                frame = self.receiver.open()
                if frame is not None:
                    return frame
                if self.closed:
                    raise ConnectionResetError("the pipe is closed")
                # Mostly nothing is there yet: asking the socket first would be a call in vain for each frame.
                await self._until_readable()
                if self.closed:
                    raise ConnectionResetError("the pipe is closed")
                try:
                    count = self.sock.recv_into(self.receiver.space()[:READ_BYTES])
                except (BlockingIOError, InterruptedError):
                    self.receiver.rest()
                    continue
                if not count:
                    raise ConnectionResetError("the peer closed the pipe")
                self.receiver.received(count)
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
