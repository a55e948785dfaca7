"""Moves bytes between two sockets inside the kernel (`os.splice`), in both directions, faithfully.

A direction borrows a kernel pipe only while bytes are in flight. An end of stream is passed on as such, a reset as a reset.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Callable

from klinket.net import sockets

_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
#: Bytes one kernel pipe holds; without privilege the system may give less.
PIPE_BYTES = 1 << 20
#: Kernel pipes kept for reuse.
MAX_SPARE_PIPES = 64
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

    def __init__(self, one: socket.socket, two: socket.socket, pipes: KernelPipes, on_end: Callable[[Pair], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes = pipes
        self._on_end = on_end
        self._halves = (_Half(one, two), _Half(two, one))
        self._over = False
        self.moved_at = self._loop.time()
        self._received = (0, 0)

    def received(self) -> tuple[int, int]:
        """Return the bytes the kernel has received from each of the two, before they were joined included."""
        if not self._over:
            self._received = received_bytes(self._halves[0].source), received_bytes(self._halves[1].source)
        return self._received

    def start(self) -> None:
        """Begin to move bytes."""
        for half in self._halves:
            self._loop.add_reader(half.source, self._move, half)

    def _move(self, half: _Half) -> None:
        if self._over:
            return
        try:
            for _ in range(ROUNDS):
                if not half.held and not half.ended and not self._take(half):
                    break
                if half.held and not self._give(half):
                    return
                if half.ended:
                    break
        except OSError:
            self.reset()
            return
        self._settle(half)

    def _take(self, half: _Half) -> bool:
        """Take bytes off the source; False when there are none now."""
        if half.pipe is None:
            half.pipe = self._pipes.borrow()
        try:
            count = os.splice(half.source.fileno(), half.pipe[1], PIPE_BYTES, flags=_FLAGS)
        except BlockingIOError:
            return False
        half.held += count
        half.ended = count == 0
        return True

    def _give(self, half: _Half) -> bool:
        """Give what is held to the target; False when it takes no more now."""
        assert half.pipe is not None
        while half.held:
            try:
                count = os.splice(half.pipe[0], half.target.fileno(), half.held, flags=_FLAGS)
            except BlockingIOError:
                if not half.blocked:
                    half.blocked = True
                    self._loop.remove_reader(half.source)
                    self._loop.add_writer(half.target, self._move, half)
                return False
            half.held -= count
        self.moved_at = self._loop.time()
        return True

    def _settle(self, half: _Half) -> None:
        """Everything taken was given: return the kernel pipe, listen again, or pass the end on."""
        if half.pipe is not None:
            self._pipes.give_back(half.pipe, empty=True)
            half.pipe = None
        if half.blocked:
            half.blocked = False
            self._loop.remove_writer(half.target)
            if not half.ended:
                self._loop.add_reader(half.source, self._move, half)
        if half.ended:
            self._loop.remove_reader(half.source)
            try:
                half.target.shutdown(socket.SHUT_WR)
            except OSError:
                self.reset()
                return
            if all(one.ended and not one.held for one in self._halves):
                self._finish(reset=False)

    def reset(self) -> None:
        """Close both sockets with RST."""
        self._finish(reset=True)

    def _finish(self, *, reset: bool) -> None:
        if self._over:
            return
        self.received()  # for the last time: the sockets close
        self._over = True
        for half in self._halves:
            self._loop.remove_reader(half.source)
            self._loop.remove_writer(half.source)
            if half.pipe is not None:
                self._pipes.give_back(half.pipe, empty=half.held == 0)
                half.pipe = None
        for half in self._halves:
            if reset:
                sockets.reset(half.source)
            else:
                half.source.close()
        self._on_end(self)
