"""A sealed datagram path at one end: what fits goes out by UDP, what comes is opened and handed to its flow."""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time
from collections.abc import Callable
from weakref import WeakSet

from klinket.domain.errors import ProtocolError
from klinket.net import forks
from klinket.wire import datagram as wire
from klinket.wire.datagram import DatagramKeys, DatagramKind

#: Bytes of sealed datagrams that are probed: what IPv4 and IPv6 carry on common links, less their headers and UDP's.
#: The first is what every link carries (RFC 8200 §5).
PROBED_BYTES = (1232, 1252, 1352, 1372, 1392, 1412, 1432, 1452, 1472, 8952, 8972)
#: A probe, and its answer: what the sender has found to arrive (2) | zeros up to the size that is tried.
_PROBE = struct.Struct(">H")
#: Every path there is in this process.
_LIVE: WeakSet[DatagramPath] = WeakSet()

#: Bytes the kernel may keep for a socket in each direction, where its limits let it.
BUFFER_BYTES = 4 << 20
#: Options of linux/in.h and linux/in6.h that the socket module does not name: nothing is fragmented, on no way.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2

# Used by one datagram at a time, from callbacks of one thread: nothing in it outlives the callback that put it there.
#: Where a datagram is read to that send_plain() sends on, without a copy.
PLAIN = memoryview(bytearray(65_536 + wire.TRAILER_BYTES))
_PLAIN = PLAIN
_OUT = memoryview(bytearray(65_536))


class DatagramPath:
    """`transmit`: hands one sealed datagram to the kernel, raises OSError. Where `answers`, probes are answered (the connector).

    `size`: bytes of the largest sealed datagram that is known to arrive; 0 while none is. `heard_at`: monotonic seconds of the
    last datagram that verified; `lost`: datagrams the kernel had no room for.
    """

    __slots__ = (
        "__weakref__",
        "_answers",
        "_keys",
        "_open_into",
        "_seal_into",
        "_transmit",
        "flows",
        "heard_at",
        "lost",
        "sent_at",
        "size",
    )

    def __init__(self, keys: DatagramKeys, transmit: Callable[[memoryview], object], *, answers: bool) -> None:
        self._keys = keys
        self._seal_into = keys.sealer.seal_into
        self._open_into = keys.opener.open_into
        self._transmit = transmit
        self._answers = answers
        self.size = 0
        self.lost = 0
        self.heard_at = time.monotonic()
        self.sent_at = 0.0
        #: Who takes the datagrams of a flow, by the first 8 bytes of its id.
        self.flows: dict[bytes, Callable[[bytes], None]] = {}
        _LIVE.add(self)
        forks.watch(self)

    def send(self, flow: bytes, datagram: bytes) -> bool:
        """Send one datagram of a flow; False where it has to go as a frame. One the kernel has no room for is lost."""
        size = len(datagram)
        if size + wire.OVERHEAD_BYTES > self.size:
            return False
        _PLAIN[:size] = datagram
        return self._out(DatagramKind.PAYLOAD, flow, size)

    def send_plain(self, flow: bytes, size: int) -> bool:
        """As send(), with the first `size` bytes of PLAIN; they are still there when it returns False."""
        if size + wire.OVERHEAD_BYTES > self.size:
            return False
        return self._out(DatagramKind.PAYLOAD, flow, size)

    def _out(self, kind: int, flow: bytes, size: int) -> bool:
        try:
            end = self._seal_into(kind, flow, _PLAIN, size, _OUT)
            self._transmit(_OUT[:end])
        except ProtocolError:
            self.size = 0  # used up, or forgotten
            return False
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                self.lost += 1
                return True
            # Too large for a link that is nearer than the one the probe found, or no way there at all now.
            self.size = PROBED_BYTES[0] if error.errno == errno.EMSGSIZE and self.size > PROBED_BYTES[0] else 0
            return False
        self.sent_at = time.monotonic()
        return True

    def probe(self, size: int) -> None:
        """Ask whether a sealed datagram of `size` bytes arrives, and its answer of the same size here."""
        self._try(DatagramKind.PROBE, self.size, size)

    def _try(self, kind: DatagramKind, found: int, size: int) -> None:
        content = size - wire.OVERHEAD_BYTES
        _PLAIN[:content] = bytes(content)
        _PROBE.pack_into(_PLAIN, 0, found)
        known = self.size
        self._out(kind, wire.NO_FLOW, content)
        self.size = known  # what is only tried may fail

    def received(self, sealed: memoryview) -> bool:
        """Take one datagram; returns whether it verified and is newer than all before: its sender's address is the peer's now."""
        newest = self._keys.opener.highest
        try:
            kind, flow, size = self._open_into(sealed, _PLAIN)
        except ProtocolError:
            return False
        self.heard_at = time.monotonic()
        newer = self._keys.opener.highest > newest
        if kind == DatagramKind.PAYLOAD:
            taker = self.flows.get(flow)
            if taker is not None:
                taker(bytes(_PLAIN[:size]))
        elif size >= _PROBE.size:
            self._probed(kind, _PROBE.unpack_from(_PLAIN)[0], len(sealed), newer)
        return newer

    def _probed(self, kind: int, found: int, size: int, newer: bool) -> None:
        if kind == DatagramKind.PROBE and self._answers:
            if newer:
                self.size = min(found, wire.MAX_SEALED_BYTES)
            self._try(DatagramKind.PROBE_ANSWER, 0, size)
        elif kind == DatagramKind.PROBE_ANSWER and not self._answers and size > self.size:
            self.size = size
            self.probe(PROBED_BYTES[0])  # so that the other end knows it

    def forget(self) -> None:
        """Send and take nothing any more."""
        self.size = 0
        self.flows.clear()
        self._keys.sealer.forget()
        self._keys.opener.forget()

    def forked(self) -> None:
        """Implements forks.Holder."""
        self.forget()


def prepare(sock: socket.socket) -> None:
    """Make a UDP socket non-blocking, with buffers for bursts, and never let it send fragments (where the system can: Linux)."""
    sock.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    if sys.platform == "linux":
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)


def forget_all() -> None:
    """Let no path of this process seal another datagram: a copy of it may be sealing under the same nonces."""
    for path in list(_LIVE):
        path.forget()
