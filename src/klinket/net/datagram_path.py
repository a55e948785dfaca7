"""A sealed datagram path at one end: what fits goes out by UDP, what comes is opened and handed to its flow."""

from __future__ import annotations

import errno
import hmac
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from klinket.domain.errors import ProtocolError
from klinket.net import forks, segments
from klinket.net.clock import entropy
from klinket.net.datagram_counts import DatagramCounts
from klinket.net.datagram_socket import NO_ROOM
from klinket.net.segments import Taker
from klinket.wire import datagram as wire
from klinket.wire.datagram import DatagramKeys, DatagramKind

#: Bytes of sealed datagrams that are probed: what IPv4 and IPv6 carry on common links, less their headers and UDP's.
#: The first is what every link carries (RFC 8200 §5).
PROBED_BYTES = (1232, 1252, 1352, 1372, 1392, 1412, 1432, 1452, 1472, 8952, 8972)
#: Seconds between two challenges of a path, wherever they go: all that can be made to go to an address that is not the client's.
CHALLENGE_SECONDS = 0.1
_PAYLOAD = int(DatagramKind.PAYLOAD)
#: Seconds after which a client proves anew where it is, and after which an address is none that is proven: whoever has left an
#: address can still write it on an envelope.
PROOF_SECONDS, MOST_PROOF_SECONDS = 60.0, 120.0
#: Every path there is in this process.
_LIVE: WeakSet[DatagramPath] = WeakSet()

#: Sealed datagrams that leave in one call, at the most, and their bytes: what one UDP datagram carries.
MOST_GATHERED, MOST_BYTES = 32, 65_000

# Used by one datagram at a time, from callbacks of one thread: nothing in it outlives the callback that put it there.
_PLAIN = memoryview(bytearray(65_536 + wire.TRAILER_BYTES))
_OUT = memoryview(bytearray(65_536))


class _Gathered:
    """Sealed datagrams in _OUT that have not left yet: of one path and one size, so that the kernel takes them in one call."""

    __slots__ = ("end", "path", "segment", "wanted")

    def __init__(self) -> None:
        self.wanted = False
        self.path: DatagramPath | None = None
        self.segment = 0
        self.end = 0

    def room(self, sealed: int) -> int:
        """Return how many of `sealed` bytes may leave with them; the first may whatever its size."""
        if sealed != self.segment:
            return int(sealed < self.segment and self.end + sealed <= min(MOST_GATHERED * self.segment, MOST_BYTES))
        return max(int(not self.end), (min(MOST_GATHERED * sealed, MOST_BYTES) - self.end) // sealed)


_GATHERED = _Gathered()


def gather() -> None:
    """Have sealed datagrams wait from now on to leave together; whoever calls it calls leave() before its callback returns."""
    _GATHERED.wanted = True


def leave() -> None:
    """Let go what has been gathered."""
    path, _GATHERED.path = _GATHERED.path, None
    end, _GATHERED.end = _GATHERED.end, 0
    if path is not None:
        path.leave(_OUT[:end], _GATHERED.segment)


def leave_all() -> None:
    """As leave(), and what comes after it leaves by itself again."""
    _GATHERED.wanted = False
    if _GATHERED.path is not None:
        leave()


class DatagramPath:
    """What both ends have in common; an end says how its sealed datagrams leave.

    `size`: bytes of the largest sealed datagram that is known to arrive; 0 while none is. `heard_at`: monotonic seconds of the
    last datagram that verified.
    """

    __slots__ = (
        "__weakref__",
        "_counts",
        "_keys",
        "_open_into",
        "_open_run",
        "_seal_into",
        "_seal_run",
        "_segments",
        "_sock",
        "_to",
        "address",
        "flows",
        "heard_at",
        "sent_at",
        "size",
    )

    def __init__(self, keys: DatagramKeys, sock: socket.socket) -> None:
        self._keys = keys
        self._sock = sock
        #: Where sealed datagrams go; None: where the socket is connected to.
        self._to: Any = None
        #: Where the other end has proven to be; None before, and where the socket is connected.
        self.address: Any = None
        self._segments = segments.SUPPORTED
        self._seal_into = keys.sealer.seal_into
        self._seal_run = keys.sealer.seal_run
        self._open_into = keys.opener.open_into
        self._open_run = keys.opener.open_run
        self.size = 0
        self._counts = DatagramCounts()
        self.heard_at = time.monotonic()
        self.sent_at = 0.0
        #: Who takes the datagrams of a flow, by the first 8 bytes of its id.
        self.flows: dict[bytes, Taker] = {}
        _LIVE.add(self)
        forks.watch(self)

    def send(self, flow: bytes, datagram: bytes) -> bool:
        """Send one datagram of a flow; False where it has to go as a frame. One the kernel has no room for is lost."""
        return self.send_all(flow, (datagram,)) == 1

    def send_all(self, flow: bytes, datagrams: Sequence[bytes | memoryview]) -> int:
        """As send(), with several; returns how many, the next of them has to go as a frame."""
        done, count = 0, len(datagrams)
        while done < count:
            size = len(datagrams[done])
            if size + wire.OVERHEAD_BYTES > self.size:
                break
            if _GATHERED.wanted:
                sent = self._gather(flow, datagrams, done, size)
            else:
                _PLAIN[:size] = datagrams[done]
                sent = int(self._out(_PAYLOAD, flow, size))
            if not sent:
                break
            done += sent
        self._counts.sent += done
        return done

    def counts(self) -> DatagramCounts:
        """Return what has become of this path's datagrams."""
        opener, counts = self._keys.opener, replace(self._counts)
        counts.replayed, counts.forged = opener.replayed, opener.forgeries
        counts.refused -= opener.replayed + opener.forgeries  # the path itself counts all that do not open
        return counts

    def _out(self, kind: int, flow: bytes, size: int) -> bool:
        if _GATHERED.path is not None:
            leave()
        try:
            end = self._seal_into(kind, flow, _PLAIN, size, _OUT)
        except ProtocolError:
            self.size = 0  # used up, or forgotten
            return False
        return self._transmit(_OUT[:end])

    def _gather(self, flow: bytes, datagrams: Sequence[bytes | memoryview], first: int, size: int) -> int:
        """Seal those from the `first` on that have its size behind those that wait to leave together; returns how many."""
        waiting = _GATHERED
        sealed = size + wire.OVERHEAD_BYTES
        if waiting.path is not None and (waiting.path is not self or not waiting.room(sealed)):
            leave()
        if waiting.path is None:
            waiting.path, waiting.segment = self, sealed
        end = first + 1
        last = min(len(datagrams), first + waiting.room(sealed))
        while end < last and len(datagrams[end]) == size:
            end += 1
        try:
            self._seal_run(flow, datagrams[first:end], size, _PLAIN, _OUT[waiting.end :])
        except ProtocolError:
            self.size = 0
            return 0
        waiting.end += (end - first) * sealed
        if sealed < waiting.segment:
            leave()  # only the last of them may be shorter
        return end - first

    def leave(self, sealed: memoryview, segment: int) -> None:
        """Hand sealed datagrams, of `segment` bytes each but the last, to the kernel: in one call where it takes them so."""
        if self._segments and len(sealed) > segment:
            try:
                segments.send(self._sock, sealed, segment, self._to)
            except OSError as error:
                if error.errno in NO_ROOM:
                    self._counts.no_room += -(-len(sealed) // segment)
                    return
                self._segments = False  # not over this interface, or not in this size: each by itself says which
            else:
                self.sent_at = time.monotonic()
                return
        for start in range(0, len(sealed), segment):
            self._transmit(sealed[start : start + segment])

    def _transmit(self, sealed: memoryview) -> bool:
        try:
            if self._to is None:
                self._sock.send(sealed)
            else:
                self._sock.sendto(sealed, self._to)
        except OSError as error:
            if error.errno in NO_ROOM:
                self._counts.no_room += 1
                return True
            # Too large for a link that is nearer than the one the probe found, or no way there at all now.
            self.size = PROBED_BYTES[0] if error.errno == errno.EMSGSIZE and self.size > PROBED_BYTES[0] else 0
            return False
        self.sent_at = time.monotonic()
        return True

    def _try(self, kind: DatagramKind, begin: bytes, size: int) -> None:
        """Send what is no flow's: `begin`, and zeros up to a sealed datagram of `size` bytes."""
        content = size - wire.OVERHEAD_BYTES
        _PLAIN[:content] = begin + bytes(content - len(begin))
        known = self.size
        self._out(kind, wire.NO_FLOW, content)
        self.size = known  # what is only tried may fail

    def _open(self, sealed: memoryview, size: int, address: Any) -> None:
        """Open datagrams of `size` bytes each, the last may be shorter: those of one flow and size go to it in one call.

        They lie in _PLAIN one behind the other: the next overwrites what is behind the content of the one before.
        """
        flow, begin, end, unit = wire.NO_FLOW, 0, 0, 0  # what waits to be given to its flow: PLAIN[begin:end]
        open_into, known = self._open_into, address == self.address
        opened = 0
        if known and len(sealed) > size > 0:
            count, flow = self._open_run(sealed, size, _PLAIN)
            if count:
                self.heard_at = time.monotonic()
                opened, unit = count * size, size - wire.OVERHEAD_BYTES
                end = count * unit
        for start in range(opened, len(sealed) or 1, size or 1):
            one = sealed[start : start + size]
            try:
                kind, whose, content = open_into(one, _PLAIN[end:])
            except ProtocolError:
                self._counts.refused += 1
                continue
            self.heard_at = time.monotonic()
            is_payload = kind == _PAYLOAD
            if begin < end and not (is_payload and whose == flow and 0 < content <= unit):
                self._give(flow, _PLAIN[begin:end], unit)
                begin = end
            if is_payload:
                if begin == end:
                    flow, unit = whose, content
                end += content
                if content < unit or not content or not known:
                    self._give(flow, _PLAIN[begin:end], unit)
                    begin = end
            if not (is_payload and known):
                self._asked(kind, one, _PLAIN[end : end + content], address)
                known = address == self.address
        if begin < end:
            self._give(flow, _PLAIN[begin:end], unit)

    def _asked(self, kind: int, sealed: memoryview, content: memoryview, address: Any) -> None:
        """Take what is no flow's, and whatever comes from an address that is not proven. Writes in _PLAIN."""
        raise NotImplementedError

    def _give(self, flow: bytes, datagrams: memoryview, size: int) -> None:
        count = -(-len(datagrams) // size) if size else 1
        taker = self.flows.get(flow)
        if taker is None:
            self._counts.no_flow += count
        else:
            self._counts.received += count
            taker(datagrams, size)

    def forget(self) -> None:
        """Send and take nothing any more."""
        self.size = 0
        self.flows.clear()
        self._keys.sealer.forget()
        self._keys.opener.forget()

    def forked(self) -> None:
        """Implements forks.Holder."""
        self.forget()


class ClientPath(DatagramPath):
    """The client's end: it asks what arrives. `sock`: its own, connected to the connector's port."""

    __slots__ = ("_answered_at", "_proof", "sized_at")

    def __init__(self, keys: DatagramKeys, sock: socket.socket) -> None:
        super().__init__(keys, sock)
        self._proof = bytes(wire.PROOF_BYTES)
        self._answered_at = 0.0
        #: Monotonic seconds at which one of `size` bytes came last.
        self.sized_at = 0.0

    def probe(self, size: int) -> None:
        """Ask whether a sealed datagram of `size` bytes arrives, and its answer of the same size here."""
        self._try(DatagramKind.PROBE, wire.probe(self.size, self._proof), size)

    def shrink(self) -> None:
        """Begin anew to find out how large they may be: the largest does not arrive any more."""
        self.size = PROBED_BYTES[0]
        for size in PROBED_BYTES[1:]:
            self.probe(size)

    def received(self, sealed: memoryview, size: int) -> None:
        """Take datagrams that have arrived, of `size` bytes each, the last may be shorter."""
        self._open(sealed, size, None)

    def _asked(self, kind: int, sealed: memoryview, content: memoryview, address: Any) -> None:
        if kind == DatagramKind.CHALLENGE and len(content) == wire.PROOF_BYTES:
            self._proof = bytes(content)
            # What a connector asks by itself is far apart. A probe is many times as long: it is not to be had at any rate.
            if self.heard_at - self._answered_at >= CHALLENGE_SECONDS / 2:
                self._answered_at = self.heard_at
                self.probe(self.size or PROBED_BYTES[0])
        elif kind == DatagramKind.PROBE_ANSWER and len(sealed) >= self.size and len(sealed) in PROBED_BYTES:
            self.sized_at = self.heard_at
            if len(sealed) == self.size:
                return
            sizes = PROBED_BYTES[:1] if self.size else PROBED_BYTES[1:]
            self.size = len(sealed)
            for size in sizes:  # the first tells the connector what was found; the others find out what else arrives
                self.probe(size)


class ConnectorPath(DatagramPath):
    """The connector's end: it answers, and sends to an address only after a secret that went there has come back from there.

    `sock`: the unconnected socket all paths share.
    """

    __slots__ = ("_candidate", "_challenged_at", "_proof", "_proven_at")

    def __init__(self, keys: DatagramKeys, sock: socket.socket) -> None:
        super().__init__(keys, sock)
        self._candidate: Any = None
        self._proof = b""
        self._challenged_at = -CHALLENGE_SECONDS
        self._proven_at = 0.0

    def received(self, sealed: memoryview, size: int, address: Any) -> None:
        """Take datagrams that have arrived from `address`, of `size` bytes each, the last may be shorter."""
        self._open(sealed, size, address)

    def _asked(self, kind: int, sealed: memoryview, content: memoryview, address: Any) -> None:
        newer = self._keys.opener.is_newest(sealed)
        probe = wire.read_probe(content) if kind == DatagramKind.PROBE else None
        if probe is not None and address == self._candidate and hmac.compare_digest(probe[1], self._proof):
            self.address = self._to = address
            self._candidate, self._proven_at = None, self.heard_at
        elif address != self.address:
            if newer:
                self._challenge(address, len(sealed))
            return
        if probe is not None:
            if newer:
                self.size = min(probe[0], wire.MAX_SEALED_BYTES)
            self._try(DatagramKind.PROBE_ANSWER, b"", len(sealed))
            if newer and self.heard_at - self._proven_at > PROOF_SECONDS:
                self._challenge(address, len(sealed))

    def doubt(self) -> None:
        """Send nothing more to an address whose proof is old; to be called once in a while."""
        if self.address is not None and time.monotonic() - self._proven_at > MOST_PROOF_SECONDS:
            self.address = self._to = None
            self.size = 0

    def _challenge(self, address: Any, asked: int) -> None:
        """Send a secret to an address, so that the client can bring it back from there. `asked`: bytes that led to it."""
        now = time.monotonic()
        size = wire.PROOF_BYTES + wire.OVERHEAD_BYTES
        if asked < size or now - self._challenged_at < CHALLENGE_SECONDS:
            return
        self._challenged_at = now
        self._counts.challenges += 1
        if address != self._candidate:
            self._candidate, self._proof = address, entropy(wire.PROOF_BYTES)
        self._to = address
        self._try(DatagramKind.CHALLENGE, self._proof, size)
        self._to = self.address


def forget_all() -> None:
    """Let no path of this process seal another datagram: a copy of it may be sealing under the same nonces."""
    for path in list(_LIVE):
        path.forget()
