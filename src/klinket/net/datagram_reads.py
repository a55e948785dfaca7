"""Many datagrams in one system call: recvmmsg(2), which Python has no function for. Elsewhere than on Linux one by one."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import sys

#: Datagrams read in one system call, at the most.
SLOTS = 32
#: Bytes for one datagram: more than any has.
SLOT_BYTES = 65_536
#: Bytes for whence it came (sockaddr_in6) and for what the kernel says beside it.
_NAME_BYTES, _ANCILLARY_BYTES = 32, 64
_KEY_BYTES = _NAME_BYTES + _ANCILLARY_BYTES
_MSG_DONTWAIT = 0x40


class _IoVector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("ancillary", ctypes.c_void_p),
        ("ancillary_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", _Header), ("length", ctypes.c_uint)]


def _untouched(size: int) -> mmap.mmap:
    """Return bytes that have memory only where something was written."""
    if sys.platform == "linux":
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a fork's writes are its own
    return mmap.mmap(-1, size)


class DatagramReads:
    """What was read last; each datagram is there until the next read()."""

    def __init__(self) -> None:
        self._content = _untouched(SLOTS * SLOT_BYTES)
        self._keys = bytearray(SLOTS * _KEY_BYTES)
        view = memoryview(self._content)
        self._slots = [view[number * SLOT_BYTES : (number + 1) * SLOT_BYTES] for number in range(SLOTS)]
        self._sizes = [0] * SLOTS
        if sys.platform == "linux":
            self._recvmmsg = ctypes.CDLL(None, use_errno=True).recvmmsg
            self._recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
            self._describe()

    def _describe(self) -> None:
        """Write down for the kernel where each datagram goes."""
        content = ctypes.addressof((ctypes.c_char * len(self._content)).from_buffer(self._content))
        keys = ctypes.addressof((ctypes.c_char * len(self._keys)).from_buffer(self._keys))
        self._vectors = (_IoVector * SLOTS)()
        self._messages = (_Message * SLOTS)()
        for number in range(SLOTS):
            self._vectors[number] = _IoVector(content + number * SLOT_BYTES, SLOT_BYTES)
            key = keys + number * _KEY_BYTES
            vector = ctypes.addressof(self._vectors) + number * ctypes.sizeof(_IoVector)
            self._messages[number].header = _Header(key, _NAME_BYTES, vector, 1, key + _NAME_BYTES, _ANCILLARY_BYTES, 0)
        self._address = ctypes.addressof(self._messages)
        self._said = memoryview(self._messages).cast("B")
        self._unsaid = bytes(self._said)
        self._numbers = self._said.cast("I")

    if sys.platform == "linux":

        def read(self, sock: socket.socket) -> int:
            """Read what has come, without waiting; returns how many datagrams. Raises OSError; nothing there is 0."""
            count = int(self._recvmmsg(sock.fileno(), self._address, SLOTS, _MSG_DONTWAIT, None))
            if count < 0:
                number = ctypes.get_errno()
                if number in (errno.EAGAIN, errno.EINTR):
                    return 0
                raise OSError(number, os.strerror(number))
            step = ctypes.sizeof(_Message) // 4
            first = _Message.length.offset // 4
            self._sizes[:count] = self._numbers[first : count * step : step].tolist()
            end = count * step * 4
            self._said[:end] = self._unsaid[:end]  # the kernel has written down how much of each part it used
            return count

    else:

        def read(self, sock: socket.socket) -> int:
            """Read what has come, without waiting; returns how many datagrams. Raises OSError; nothing there is 0."""
            for number in range(SLOTS):
                try:
                    self._sizes[number] = sock.recv_into(self._slots[number])
                except (BlockingIOError, InterruptedError):
                    return number
                except OSError:
                    if number:
                        return number  # a socket that is broken says so again
                    raise
            return SLOTS

    def datagram(self, number: int) -> memoryview:
        """Return the n-th of those that were read."""
        return self._slots[number][: self._sizes[number]]

    def key(self, number: int) -> bytes:
        """Return all that the kernel said beside the n-th: the same bytes for the same sender and destination (Linux)."""
        return bytes(self._keys[number * _KEY_BYTES : (number + 1) * _KEY_BYTES])


def read_key(key: bytes) -> tuple[tuple[str, int] | None, list[tuple[int, int, bytes]]]:
    """Return a key's sender (address and port), None for one of another family, and its ancillary data as recvmsg() does."""
    family = int.from_bytes(key[:2], sys.byteorder)
    port = int.from_bytes(key[2:4], "big")
    sender: tuple[str, int] | None = None
    if family == socket.AF_INET:
        sender = socket.inet_ntop(socket.AF_INET, key[4:8]), port
    elif family == socket.AF_INET6:
        sender = socket.inet_ntop(socket.AF_INET6, key[8:24]), port
    word = ctypes.sizeof(ctypes.c_size_t)
    head = word + 8
    length = int.from_bytes(key[_NAME_BYTES : _NAME_BYTES + word], sys.byteorder)
    if not head <= length <= _ANCILLARY_BYTES:
        return sender, []
    level, kind = (int.from_bytes(key[_NAME_BYTES + word + at : _NAME_BYTES + word + at + 4], sys.byteorder) for at in (0, 4))
    return sender, [(level, kind, key[_NAME_BYTES + head : _NAME_BYTES + length])]
