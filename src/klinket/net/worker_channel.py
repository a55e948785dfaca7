"""Messages with open files between a process and its workers, over a socket pair that both inherit or were given.

    message   length of the rest (4, big-endian) | number of files (1) | body

Files are sent with a message's first byte (SCM_RIGHTS) and belong to whoever receives them.
"""

from __future__ import annotations

import array
import asyncio
import errno
import logging
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

#: Bytes of a message's body: a flow with everything that is buffered of it.
MAX_BODY_BYTES = 4 << 20
#: Open files of one message.
MAX_FILES = 4
_HEAD = struct.Struct(">IB")
_RECEIVE_BYTES = 65_536
#: Pieces received before others get their turn.
_ROUNDS = 32
_CONTROL_BYTES = socket.CMSG_SPACE(MAX_FILES * array.array("i").itemsize)

#: Is given a body and its files.
Received = Callable[[bytes, list[int]], None]


class WorkerChannel:
    """One end. `received` is called for each message; `ended` once, when the other end is gone or what it says is no message."""

    def __init__(self, sock: socket.socket, received: Received, ended: Callable[[], None]) -> None:
        self._sock = sock
        self._received = received
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._files: deque[int] = deque()
        self._waiting: deque[tuple[memoryview, Sequence[int]]] = deque()
        self.over = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self.take)

    # ---- sending

    def offer(self, body: bytes, files: Sequence[int]) -> bool:
        """Send a message if it begins to go out at once; else False: nothing of it was sent, and the files stay the caller's."""
        if self.over or self._waiting:
            return False
        data = memoryview(_HEAD.pack(len(body) + 1, len(files)) + body)
        try:
            sent = self._send(data, files)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS):
                logger.warning("a worker process cannot be given work: %s", error)
            return False
        self._wait_with(data[sent:], ())
        return True

    def send(self, body: bytes, files: Sequence[int] = ()) -> None:
        """Send a message, now or when the other end takes it; closes the files after that."""
        self._wait_with(memoryview(_HEAD.pack(len(body) + 1, len(files)) + body), files)
        self._flush()

    def _wait_with(self, data: memoryview, files: Sequence[int]) -> None:
        if data and not self.over:
            if not self._waiting:
                self._loop.add_writer(self._sock, self._flush)
            self._waiting.append((data, files))
        else:
            for file in files:
                os.close(file)

    def _send(self, data: memoryview, files: Sequence[int]) -> int:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        return self._sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)

    def _flush(self) -> None:
        while self._waiting:
            data, files = self._waiting[0]
            try:
                sent = self._send(data, files)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ETOOMANYREFS, errno.ENOBUFS):
                    self.close()
                return
            self._waiting.popleft()
            for file in files:
                os.close(file)
            if sent < len(data):
                self._waiting.appendleft((data[sent:], ()))
        self._loop.remove_writer(self._sock)

    # ---- receiving

    def take(self) -> None:
        """Receive what is there, without waiting for the loop to say so."""
        for _ in range(_ROUNDS):
            if self.over or not self._receive():
                return

    def _receive(self) -> bool:
        """Receive a piece and hand on the messages that are whole now; False when there was nothing."""
        try:
            data, control, flags, _ = self._sock.recvmsg(_RECEIVE_BYTES, _CONTROL_BYTES, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data, control, flags = b"", [], 0
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
                self._files.extend(found)
        if not data or flags & socket.MSG_CTRUNC:
            if flags & socket.MSG_CTRUNC:
                logger.error("a worker channel lost open files: there are too many")
            self.close()
            return False
        self._data += data
        while not self.over and len(self._data) >= _HEAD.size:
            length, count = _HEAD.unpack_from(self._data)
            if not 1 <= length <= MAX_BODY_BYTES or count > MAX_FILES:
                self.close()
                return False
            end = _HEAD.size + length - 1
            if len(self._data) < end:
                break
            if len(self._files) < count:
                self.close()
                return False
            body = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            self._received(body, [self._files.popleft() for _ in range(count)])
        return True

    def wait_for(self, done: Callable[[], bool], until: float) -> bool:
        """Send and receive without the loop until `done`, the end of the channel, or `until` (monotonic seconds).

        Returns whether it is done.
        """
        while not done():
            left = until - time.monotonic()
            if self.over or left <= 0:
                return False
            poll = select.poll()
            poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._waiting else 0))
            poll.poll(left * 1000)
            if self._waiting:
                self._flush()
            if not self.over:
                self._receive()
        return True

    def close(self) -> None:
        """Close this end; what was not taken is lost."""
        if self.over:
            return
        self.over = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        while self._files:
            os.close(self._files.popleft())
        for _, files in self._waiting:
            for file in files:
                os.close(file)
        self._waiting.clear()
        self._ended()
