"""Watches of many sockets behind one descriptor of the event loop: a flow begins and ends without the loop hearing of it.

The loop's own watches cost several system calls each time one begins or ends, which is more than the rest of a short flow. Here
a socket is put into one `epoll` set and stays there; what is not wanted any more is only taken out when it is heard of again.
Where there is no epoll the loop's own watches serve.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from klinket.net import forks

#: Events taken in one turn of the loop.
BATCH = 256

_Call = Callable[..., object]


class _Watch:
    """One socket. `mask`: what the kernel was asked for, at least what is wanted."""

    __slots__ = ("mask", "reader", "reader_args", "since", "sock", "writer", "writer_args")

    def __init__(self, sock: socket.socket, since: int) -> None:
        self.sock = sock
        self.since = since
        self.mask = 0
        self.reader: _Call | None = None
        self.reader_args: tuple[Any, ...] = ()
        self.writer: _Call | None = None
        self.writer_args: tuple[Any, ...] = ()


if sys.platform == "linux":

    class Poll:
        """The watches of one loop. Callbacks are called as long as the socket is ready, and may be called once too often."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop
            self._epoll = select.epoll()
            #: By the sockets' numbers, which are small and close together.
            self._watches: list[_Watch | None] = []
            self._round = 0
            loop.add_reader(self._epoll.fileno(), self._turn)
            forks.watch(self)

        def add_reader(self, sock: socket.socket, callback: Callable[..., object], *args: Any) -> None:
            """Call `callback(*args)` while the socket can be read, until remove_reader(); instead of a former one."""
            watch = self._watch(sock)
            watch.reader, watch.reader_args = callback, args
            if not watch.mask & select.EPOLLIN:
                self._ask(watch, watch.mask | select.EPOLLIN)

        def add_writer(self, sock: socket.socket, callback: Callable[..., object], *args: Any) -> None:
            """Call `callback(*args)` while the socket can be written, until remove_writer(); instead of a former one."""
            watch = self._watch(sock)
            watch.writer, watch.writer_args = callback, args
            if not watch.mask & select.EPOLLOUT:
                self._ask(watch, watch.mask | select.EPOLLOUT)

        def remove_reader(self, sock: socket.socket) -> None:
            """Call nothing any more when the socket can be read."""
            watch = self._found(sock.fileno())
            if watch is not None and watch.sock is sock:
                watch.reader, watch.reader_args = None, ()

        def remove_writer(self, sock: socket.socket) -> None:
            """Call nothing any more when the socket can be written."""
            watch = self._found(sock.fileno())
            if watch is not None and watch.sock is sock:
                watch.writer, watch.writer_args = None, ()

        def forget(self, sock: socket.socket) -> None:
            """Watch a socket no more; has to be called before it is closed."""
            number = sock.fileno()
            watch = self._found(number)
            if watch is not None and watch.sock is sock:
                self._drop(number, watch)

        def _found(self, number: int) -> _Watch | None:
            return self._watches[number] if 0 <= number < len(self._watches) else None

        def _watch(self, sock: socket.socket) -> _Watch:
            number = sock.fileno()
            watch = self._found(number)
            if watch is None or watch.sock is not sock:
                if number < 0:
                    raise ValueError("a closed socket cannot be watched")
                if (missing := number + 1 - len(self._watches)) > 0:
                    self._watches += [None] * missing
                watch = self._watches[number] = _Watch(sock, self._round)
            return watch

        def _ask(self, watch: _Watch, mask: int) -> None:
            number = watch.sock.fileno()
            if watch.mask:
                self._epoll.modify(number, mask)
            else:
                try:
                    self._epoll.register(number, mask)
                except FileExistsError:  # of a former socket of that number, which a child of this process still has open
                    self._epoll.modify(number, mask)
            watch.mask = mask

        def _drop(self, number: int, watch: _Watch) -> None:
            self._watches[number] = None
            if watch.mask:
                try:
                    self._epoll.unregister(number)
                except OSError:
                    pass  # it was closed, and the kernel has forgotten it already

        def _turn(self) -> None:
            self._round += 1
            for number, events in self._epoll.poll(0, BATCH):
                watch = self._watches[number]
                if watch is None or watch.since == self._round:
                    continue  # forgotten by what was called before in this turn; the number may be another socket's by now
                reader = watch.reader if events & ~select.EPOLLOUT else None
                if reader is not None:
                    self._call(reader, watch.reader_args)
                # What was called may have forgotten the socket.
                writer = watch.writer if events & ~select.EPOLLIN and self._watches[number] is watch else None
                if writer is not None:
                    self._call(writer, watch.writer_args)
                if reader is None and writer is None:
                    self._heard_in_vain(number, watch)

        def _heard_in_vain(self, number: int, watch: _Watch) -> None:
            wanted = (select.EPOLLIN if watch.reader else 0) | (select.EPOLLOUT if watch.writer else 0)
            if not wanted or watch.sock.fileno() != number:
                self._drop(number, watch)
            else:
                self._ask(watch, wanted)

        def _call(self, call: _Call, args: tuple[Any, ...]) -> None:
            try:
                call(*args)
            except Exception as error:
                self.loop.call_exception_handler({"message": "a watch of a socket failed", "exception": error})

        def forked(self) -> None:
            """Implements forks.Holder. The set is the parent's too: nothing in it may be changed."""
            self._watches.clear()
            self._epoll.close()

else:

    class Poll:
        """The loop's own watches."""

        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self.loop = loop
            self.add_reader = loop.add_reader
            self.add_writer = loop.add_writer
            self.remove_reader = loop.remove_reader
            self.remove_writer = loop.remove_writer

        def forget(self, sock: socket.socket) -> None:
            """Watch a socket no more; has to be called before it is closed."""
            if sock.fileno() >= 0:
                self.loop.remove_reader(sock)
                self.loop.remove_writer(sock)


class _OfThread(threading.local):
    poll: Poll | None = None


_OF_THREAD = _OfThread()


def poll() -> Poll:
    """Return the watches of the running loop."""
    loop = asyncio.get_running_loop()
    found = _OF_THREAD.poll
    if found is None or found.loop is not loop:
        found = _OF_THREAD.poll = Poll(loop)
    return found


def forget(sock: socket.socket) -> None:
    """Have nothing of this thread watch a socket any more: it is about to be closed, perhaps after its loop has ended."""
    if _OF_THREAD.poll is not None:
        _OF_THREAD.poll.forget(sock)


def tell(waiting: asyncio.Future[None]) -> None:
    """End a wait that has not ended yet."""
    if not waiting.done():
        waiting.set_result(None)


async def readable(sock: socket.socket) -> None:
    """Return when the socket can be read, perhaps once too early."""
    watches = poll()
    waiting: asyncio.Future[None] = watches.loop.create_future()
    watches.add_reader(sock, tell, waiting)
    try:
        await waiting
    finally:
        watches.remove_reader(sock)


async def writable(sock: socket.socket) -> None:
    """Return when the socket can be written."""
    watches = poll()
    waiting: asyncio.Future[None] = watches.loop.create_future()
    watches.add_writer(sock, tell, waiting)
    try:
        await waiting
    finally:
        watches.remove_writer(sock)
