"""Bytes of flows at a rate: sockets that take and give no more than their turn, and datagrams that wait for theirs.

A stream waits, and so does whoever writes it; datagrams wait within bounds, and are dropped and counted beyond them.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from klinket.domain.shaper import Shaper, Waiter
from klinket.net.poll import Poll

#: Datagrams of one flow and direction that wait for their turn, and their bytes.
MAX_WAITING_DATAGRAMS = 64
MAX_WAITING_BYTES = 262_144
#: Least seconds between two looks at who is next.
_LEAST_WAIT = 0.001


class Line:
    """One direction of all flows of an account: a shaper and its timer. `waits`: how often something had to wait."""

    def __init__(self, rate: float | None) -> None:
        self._shaper = Shaper(rate, time.monotonic())
        self._timer: asyncio.TimerHandle | None = None
        self.waits = 0
        self.dropped = 0

    def set_rate(self, rate: float | None) -> None:
        """Change the rate (bytes a second, None: no limit) for those who wait as well."""
        self._shaper.set_rate(rate, time.monotonic())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._serve()

    def take(self, waiter: Waiter, most: int, *, whole: bool = False) -> int:
        """See Shaper.take()."""
        taken = self._shaper.take(waiter, most, time.monotonic(), whole=whole)
        if not taken:
            self.waits += 1
            self._look_later()
        return taken

    def give_back(self, waiter: Waiter, count: int) -> None:
        """See Shaper.give_back()."""
        self._shaper.give_back(waiter, count)

    def leave(self, waiter: Waiter) -> None:
        """Wait no more."""
        self._shaper.leave(waiter)

    def _look_later(self) -> None:
        wait = self._shaper.wait(time.monotonic())
        if wait is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(_LEAST_WAIT, wait), self._serve)

    def _serve(self) -> None:
        self._timer = None
        self._shaper.serve(time.monotonic())
        self._look_later()


class Lanes(NamedTuple):
    """Both directions of an account: to its clients, and from them."""

    to_clients: Line
    from_clients: Line

    @classmethod
    def of(cls, rate: float) -> Lanes:
        """Return lanes of a rate in bytes a second, each direction by itself."""
        return cls(Line(rate), Line(rate))


class _Turn:
    """One direction of a socket in its line."""

    __slots__ = ("_go_on",)

    def __init__(self, go_on: Callable[[], None]) -> None:
        self._go_on = go_on

    def turn(self) -> None:
        self._go_on()


class PacedSocket(socket.socket):
    """A non-blocking stream socket that says it is not ready while its turn has not come. Made by paced().

    Whoever watches it finds it ready all the time meanwhile: its watch is taken away, and put back with its turn.
    """

    def bind_lanes(self, lanes: Lanes, watches: Poll, readable: Callable[[], None], writable: Callable[[], None]) -> None:
        """`readable`, `writable`: what its watches call."""
        self._lanes = lanes
        self._watches = watches
        self._reads = _Turn(lambda: self._go_on(watches.add_reader, readable))
        self._writes = _Turn(lambda: self._go_on(watches.add_writer, writable))

    def _go_on(self, watch: Callable[..., None], call: Callable[[], None]) -> None:
        if self.fileno() >= 0:
            watch(self, call)
            call()

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As socket.recv_into, of as many bytes as may go to the client now."""
        line = self._lanes.to_clients
        most = line.take(self._reads, nbytes or len(buffer))
        if not most:
            self._watches.remove_reader(self)
            raise BlockingIOError
        count = 0
        try:
            count = super().recv_into(buffer, most, flags)
        finally:
            line.give_back(self._reads, most - count)
        return count

    def send(self, data: Any, flags: int = 0) -> int:
        """As socket.send, of as many bytes as may come from the client now."""
        line = self._lanes.from_clients
        most = line.take(self._writes, len(data)) if len(data) else 0
        if not most:
            self._watches.remove_writer(self)
            raise BlockingIOError
        count = 0
        try:
            count = super().send(data[:most], flags)
        finally:
            line.give_back(self._writes, most - count)
        return count

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        """As socket.sendmsg of plain bytes, of as many as may come from the client now."""
        return self.send(b"".join(buffers))

    def leave(self) -> None:
        """Wait for no turn any more."""
        self._lanes.to_clients.leave(self._reads)
        self._lanes.from_clients.leave(self._writes)

    def close(self) -> None:
        """Close, and wait for no turn any more."""
        self.leave()
        super().close()


def paced(
    sock: socket.socket, lanes: Lanes | None, watches: Poll, readable: Callable[[], None], writable: Callable[[], None]
) -> socket.socket:
    """Return another object of the same open socket, in these lanes or none; `sock` is closed then. Watches: the caller's."""
    if isinstance(sock, PacedSocket):
        sock.leave()
    made: socket.socket
    if lanes is None:
        made = socket.socket(fileno=sock.detach())
    else:
        made = PacedSocket(fileno=sock.detach())
        made.bind_lanes(lanes, watches, readable, writable)
    made.setblocking(False)
    return made


class DatagramLane:
    """One direction of one flow of datagrams. `deliver`: takes those whose turn has come."""

    __slots__ = ("_bytes", "_deliver", "_line", "_waiting")

    def __init__(self, line: Line, deliver: Callable[[bytes], None]) -> None:
        self._line = line
        self._deliver = deliver
        self._waiting: deque[bytes] = deque()
        self._bytes = 0

    def offer(self, datagram: bytes) -> None:
        """Deliver a datagram now or with its turn; one too many is dropped and counted."""
        size = len(datagram)
        if not self._waiting and (not size or self._line.take(self, size, whole=True)):
            self._deliver(datagram)
        elif len(self._waiting) >= MAX_WAITING_DATAGRAMS or self._bytes + size > MAX_WAITING_BYTES:
            self._line.dropped += 1
        else:
            self._waiting.append(datagram)
            self._bytes += size

    def turn(self) -> None:
        """Implements Waiter."""
        while self._waiting:
            size = len(self._waiting[0])
            if size and not self._line.take(self, size, whole=True):
                return
            self._bytes -= size
            self._deliver(self._waiting.popleft())

    def close(self) -> None:
        """Deliver nothing any more."""
        self._line.leave(self)
        self._waiting.clear()
        self._bytes = 0

    def release(self) -> None:
        """Deliver all that waits now: there is no limit any more."""
        self._line.leave(self)
        while self._waiting:
            self._deliver(self._waiting.popleft())
        self._bytes = 0


class Passing:
    """One direction of a flow whose messages are moved by a task, which waits."""

    __slots__ = ("_line", "_size", "_waits")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._size = 0
        self._waits: asyncio.Future[None] | None = None

    async def passes(self, size: int) -> None:
        """Return when a message of `size` bytes (up to MAX_WHOLE_BYTES) may go."""
        if not size or self._line.take(self, size, whole=True):
            return
        self._size = size
        self._waits = asyncio.get_running_loop().create_future()
        try:
            await self._waits
        finally:
            self._waits = None
            self._line.leave(self)

    def turn(self) -> None:
        """Implements Waiter."""
        if self._waits is not None and not self._waits.done() and self._line.take(self, self._size, whole=True):
            self._waits.set_result(None)
