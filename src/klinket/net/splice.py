"""Moves bytes between two sockets inside the kernel (`os.splice`), in both directions, faithfully.

A direction borrows a kernel pipe only while bytes are in flight. An end of stream is passed on as such, a reset as a reset.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable

from klinket.net import sockets
from klinket.net.poll import poll

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
#: Bytes one kernel pipe holds; without privilege the system may give less.
PIPE_BYTES = 1 << 20
#: Kernel pipes kept for reuse.
MAX_SPARE_PIPES = 64
#: Seconds until a direction for which there was no kernel pipe tries again.
NO_PIPE_SECONDS = 0.05
#: Seconds between looks whether a side that is not read from, as it has ended or the other takes nothing, was reset.
LOOK_SECONDS = 1.0
#: Bytes taken at once after which there may well be more: with fewer the source is empty now, and looking would be in vain.
MORE_BYTES = 32_768
#: Bytes read at once where `os.splice` takes none though some are there: an empty kernel pipe, however small, takes them.
READ_BYTES = 4096
#: Rounds a direction runs before others get their turn.
ROUNDS = 8


#: `tcpi_bytes_received` of Linux's struct tcp_info, which only grows: its place, and the bytes up to its end.
_BYTES_RECEIVED = struct.Struct("=128xQ")


def received_bytes(sock: socket.socket) -> int:
    """Return how many bytes a TCP connection has received, as the kernel counts: no read pays for it. 0 when it cannot say."""
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.size)
        return int(_BYTES_RECEIVED.unpack(told)[0])
    except (OSError, struct.error):  # closed, or no TCP
        return 0


class KernelPipes:
    """A pool of kernel pipes."""

    def __init__(self) -> None:
        self._spare: list[tuple[int, int]] = []

    def borrow(self) -> tuple[int, int]:
        """Return an empty pipe (read end, write end); raises OSError when there is none to be had."""
        if self._spare:
            return self._spare.pop()
        ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # pipe-user-pages-soft: the default size works, only slower
        return ends

    def give_back(self, ends: tuple[int, int], *, empty: bool) -> None:
        """Take a pipe back; one with bytes in it is closed."""
        if empty and len(self._spare) < MAX_SPARE_PIPES:
            self._spare.append(ends)
        else:
            os.close(ends[0])
            os.close(ends[1])


class _Half:
    """One direction: from `source` to `target`."""

    __slots__ = ("blocked", "ended", "held", "pipe", "source", "target")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.pipe: tuple[int, int] | None = None
        self.held = 0
        self.ended = False
        self.blocked = False


class Pair:
    """Two joined sockets. `on_end` is called once, when both directions have ended or one was reset."""

    __slots__ = (
        "_halves", "_looking", "_on_end", "_over", "_pipes", "_received", "_reset_at_close", "_watches", "moved", "moved_at",
    )  # fmt: skip

    def __init__(
        self,
        one: socket.socket,
        two: socket.socket,
        pipes: KernelPipes,
        on_end: Callable[[Pair], None],
        ended: tuple[bool, bool] = (False, False),
    ) -> None:
        """`ended`: what `one`, and `two`, have sent to its end already, where another process has moved the bytes before."""
        self._watches = poll()
        self._pipes = pipes
        self._on_end = on_end
        self._halves = (_Half(one, two), _Half(two, one))
        for half, over in zip(self._halves, ended, strict=True):
            half.ended = over
        self._over = False
        self._reset_at_close = False
        self._looking: asyncio.TimerHandle | None = None
        #: Bytes moved in both directions.
        self.moved = 0
        self.moved_at = self._watches.loop.time()
        self._received = (0, 0)

    def received(self) -> tuple[int, int]:
        """Return the bytes the kernel has received from each of the two, before they were joined included."""
        if not self._over:
            self._received = received_bytes(self._halves[0].source), received_bytes(self._halves[1].source)
        return self._received

    def start(self) -> None:
        """Begin to move bytes."""
        for half in self._halves:
            if half.ended:
                self._look_later()
                continue
            sockets.keep_urgent(half.source)
            self._watches.add_reader(half.source, self._move, half)

    @property
    def over(self) -> bool:
        """Return whether the pair has ended here: by itself, or for another process."""
        return self._over

    def hand_over(self) -> tuple[tuple[int, int], tuple[bool, bool]] | None:
        """Return files and ends of both sockets for another process, or None while bytes are in flight.

        Follow with moved(), or stay(). From here on the last close of the sockets is a reset, whichever process dies with them.
        """
        if self._over or any(half.held or half.pipe for half in self._halves):
            return None
        one, two = self._halves
        self.reset_at_close(reset=True)
        return (one.source.fileno(), two.source.fileno()), (one.ended, two.ended)

    def stay(self) -> None:
        """Go on here after all."""
        self.reset_at_close(reset=False)

    def moved_elsewhere(self) -> None:
        """Note that another process moves the bytes now, and close the sockets here; `on_end` is to be called by ended()."""
        self.received()
        self._over = True
        self._unwatch()
        for half in self._halves:
            half.source.close()

    def received_elsewhere(self, received: tuple[int, int]) -> None:
        """Take over what the other process says of received()."""
        self._received = received

    def ended(self) -> None:
        """Note that the pair has ended in the other process."""
        self._on_end(self)

    def reset_at_close(self, *, reset: bool) -> None:
        """Have a close of the sockets, also by the end of this process, be a reset, except that of a pair which has ended."""
        self._reset_at_close = reset
        for half in self._halves:
            sockets.reset_if_dropped(half.source, reset)

    def _move(self, half: _Half) -> None:
        if self._over:
            return
        moved = MORE_BYTES
        try:
            for number in range(ROUNDS):
                if not half.held and not half.ended and not self._take(half, waits=number == 0):
                    break
                moved = half.held
                if half.held and not self._give(half):
                    return
                if half.ended or moved < MORE_BYTES:
                    break
        except OSError:
            self.reset()
            return
        self._settle(half)

    def _take(self, half: _Half, *, waits: bool) -> bool:
        """Take bytes off the source; False when there are none now. `waits`: there seems to be something."""
        if half.pipe is None:
            try:
                half.pipe = self._pipes.borrow()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._watches.remove_reader(half.source)  # no file for it now: the bytes wait where they are
                self._watches.loop.call_later(NO_PIPE_SECONDS, self._again, half)
                return False
        try:
            count = os.splice(half.source.fileno(), half.pipe[1], PIPE_BYTES, flags=_FLAGS)
        except BlockingIOError:
            if not waits:
                return False
            # From an urgent byte on the kernel splices nothing until it is read, and says all the while that there is something.
            try:
                data = half.source.recv(READ_BYTES)
            except BlockingIOError:
                return False
            count = os.write(half.pipe[1], data) if data else 0
        half.held += count
        half.ended = count == 0
        return True

    def _again(self, half: _Half) -> None:
        if not self._over and not half.ended and not half.blocked:
            self._watches.add_reader(half.source, self._move, half)

    def _give(self, half: _Half) -> bool:
        """Give what is held to the target; False when it takes no more now."""
        assert half.pipe is not None
        while half.held:
            try:
                count = os.splice(half.pipe[0], half.target.fileno(), half.held, flags=_FLAGS)
            except BlockingIOError:
                if not half.blocked:
                    half.blocked = True
                    self._watches.remove_reader(half.source)
                    self._watches.add_writer(half.target, self._move, half)
                    self._look_later()
                return False
            half.held -= count
            self.moved += count
        self.moved_at = self._watches.loop.time()
        return True

    def _settle(self, half: _Half) -> None:
        """Everything taken was given: return the kernel pipe, listen again, or pass the end on."""
        if half.pipe is not None:
            self._pipes.give_back(half.pipe, empty=True)
            half.pipe = None
        if half.blocked:
            half.blocked = False
            self._watches.remove_writer(half.target)
            if not half.ended:
                self._watches.add_reader(half.source, self._move, half)
        if half.ended:
            self._watches.remove_reader(half.source)
            self._look_later()
            try:
                half.target.shutdown(socket.SHUT_WR)
            except OSError:
                self.reset()
                return
            if all(one.ended and not one.held for one in self._halves):
                self._finish(reset=False)

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = self._watches.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Pass a reset on that came while nothing was read from its side, because the other took nothing."""
        self._looking = None
        unread = [half for half in self._halves if half.blocked or half.ended]
        if self._over or not unread:
            return
        if any(sockets.was_reset(half.source) for half in unread):
            self.reset()
        else:
            self._look_later()

    def reset(self) -> None:
        """Close both sockets with RST."""
        self._finish(reset=True)

    def _unwatch(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        for half in self._halves:
            self._watches.forget(half.source)

    def _finish(self, *, reset: bool) -> None:
        if self._over:
            return
        self.received()  # for the last time: the sockets close
        self._over = True
        self._unwatch()
        if self._reset_at_close and not reset:
            self.reset_at_close(reset=False)
        for half in self._halves:
            if half.pipe is not None:
                self._pipes.give_back(half.pipe, empty=half.held == 0)
                half.pipe = None
        for half in self._halves:
            if reset:
                sockets.reset(half.source)
            else:
                half.source.close()
        self._on_end(self)
