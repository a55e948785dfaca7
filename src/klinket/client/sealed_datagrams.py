"""The sealed datagram path of a link: opened with the first UDP flow, probed, kept alive, given up and tried again.

It goes to the connector itself where that works, else over a relay's UDP port, and where neither does datagrams are frames.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from klinket.client.datagram_way import DatagramWay
from klinket.net import datagram_socket, forks, segments, sockets
from klinket.net.clock import entropy
from klinket.net.datagram_path import PROBED_BYTES, ClientPath
from klinket.net.relay_binding import RelayBinding
from klinket.net.rounds import Rounds
from klinket.net.segments import Taker
from klinket.wire import datagram as wire
from klinket.wire import relay_datagram
from klinket.wire.link import RANDOM_BYTES, Link
from klinket.wire.link_control import CloseDatagrams, DatagramsOpened, LinkMessage, NoDatagrams, OpenDatagrams

logger = logging.getLogger(__name__)

#: Seconds between looks at the path.
TICK_SECONDS = 1.0
#: Seconds after which a path on which nothing is sent is probed: what is between keeps the way open.
#: Network address translation may forget it after 30 s (RFC 4787 asks for 2 minutes).
KEEPALIVE_SECONDS = 15.0
#: Looks in a row at which nothing has answered, after which the path is given up.
MOST_UNANSWERED = 3
#: Seconds for which a path without flows is kept.
UNUSED_SECONDS = 60.0
#: Seconds after which a path that was given up, or never worked, is tried again: the first time, and at the most.
AGAIN_SECONDS, MOST_AGAIN_SECONDS = 15.0, 300.0

# Used by one datagram at a time, from callbacks of one thread.
_BUFFER = memoryview(bytearray(65_536))


class SealedDatagrams:
    """`tell`: sends a message on the link's control pipe, or returns False.

    `where`: family and address of the connector's UDP port; None where there is none. `relayed`: the way over a relay, if any.
    """

    def __init__(
        self,
        link: Link,
        tell: Callable[[LinkMessage], bool],
        where: Callable[[], tuple[int, Any] | None],
        relayed: DatagramWay | None = None,
    ) -> None:
        self._link = link
        self._direct = DatagramWay(tell, where)
        #: The best first.
        self._ways = [self._direct] if relayed is None else [self._direct, relayed]
        if relayed is not None:
            relayed.attend(self.answered_on, self.ended_on)
        self._flows: dict[bytes, Taker] = {}
        self._asked: tuple[DatagramWay, bytes, bytes] | None = None
        self._path: ClientPath | None = None
        #: The way of the path that is open, and its binding where a relay is between.
        self._way: DatagramWay = self._direct
        self._binding: RelayBinding | None = None
        self._sock: socket.socket | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._rounds = Rounds()
        self._unanswered = self._unproven = 0
        self._used_at = 0.0
        self._to_close = False
        self._closed = False
        forks.watch(self)

    @property
    def works(self) -> bool:
        """Return whether datagrams go out sealed now."""
        return self._path is not None and self._path.size > 0

    @property
    def relayed(self) -> bool:
        """Return whether a relay is on the path that is open."""
        return self._path is not None and self._binding is not None

    # ---- flows

    def add(self, flow: bytes, taker: Taker) -> None:
        """Give a flow's datagrams to `taker`, and have a path for them."""
        self._flows.setdefault(flow, taker)
        self._begin()

    def remove(self, flow: bytes, taker: Taker) -> None:
        """Give them to nobody any more."""
        if self._flows.get(flow) == taker:
            del self._flows[flow]
            self._used_at = time.monotonic()

    def send(self, flow: bytes, datagram: bytes) -> bool:
        """Send a datagram; False where it has to go as a frame."""
        return self._path is not None and self._path.send(flow, datagram)

    def send_all(self, flow: bytes, datagrams: Sequence[bytes | memoryview]) -> int:
        """Send datagrams; returns how many, the next has to go as a frame."""
        return 0 if self._path is None else self._path.send_all(flow, datagrams)

    def take_over(self, former: SealedDatagrams) -> None:
        """Have the flows of the link that this one replaces: they stay on their pipes, their datagrams come here from now on."""
        for flow, taker in former._flows.items():
            self.add(flow, taker)
        former.successor = self

    #: What has taken the flows over, where the link was replaced.
    successor: SealedDatagrams | None = None

    # ---- the path

    def _begin(self) -> None:
        """Ask for a path on the best way that may be tried now, where none that is as good is open."""
        if self._closed or self._asked is not None:
            return
        now = time.monotonic()
        for way in self._ways:
            if self._path is not None and way is self._way:
                return
            if now >= way.again_at and way.there:
                self._ask(way)
                return

    def _ask(self, way: DatagramWay) -> None:
        receiver = wire.receiver(0, int.from_bytes(entropy(wire.INDEX_BYTES), "big"))
        self._asked = way, receiver, entropy(RANDOM_BYTES)
        if not way.ask(OpenDatagrams(receiver=receiver.hex(), random=self._asked[2].hex())):
            self._asked = None  # something else is being sent there
        self._tick_later()

    def answered(self, message: DatagramsOpened | NoDatagrams) -> None:
        """Take the connector's answer on the control pipe; raises ProtocolError."""
        self.answered_on(self._direct, message)

    def answered_on(self, way: DatagramWay, message: DatagramsOpened | NoDatagrams) -> None:
        """Take the connector's answer on a way; raises ProtocolError."""
        asked, where = self._asked, way.where()
        if asked is None or asked[0] is not way:
            return
        self._asked = None
        if self._closed or where is None:
            return
        if isinstance(message, NoDatagrams):
            way.again_at = time.monotonic() + MOST_AGAIN_SECONDS
            way.close()
            return
        receiver, random = message.path()
        self._end_path()  # the connector has ended it by this answer
        self._way = way
        try:
            self._sock = sock = sockets.own_socket(where[0], socket.SOCK_DGRAM)
            datagram_socket.prepare(sock)
            sock.connect(where[1])
        except OSError as error:
            self._given_up(str(error))
            return
        keys = wire.client_keys(self._link, asked[1], receiver, asked[2], random)
        self._path = ClientPath(keys, sock)
        self._path.flows = self._flows
        self._unanswered = self._unproven = 0
        asyncio.get_running_loop().add_reader(sock, self._readable)
        if way.leg is None:
            self._path.probe(PROBED_BYTES[0])
        else:
            self._binding = RelayBinding(way.leg, asked[1], receiver, self._to_relay)
            self._binding.look()

    def ended_on(self, way: DatagramWay, reason: str) -> None:
        """Take note that nothing is answered on a way, or that its path has ended."""
        if self._path is not None and self._way is way:
            self._given_up(reason)
        elif self._asked is not None and self._asked[0] is way:
            self._asked = None
            self._avoid(way)

    def _to_relay(self, message: bytes) -> None:
        if self._sock is not None:
            try:
                self._sock.send(message)
            except OSError as error:
                logger.debug("sealed datagrams: %s", error)  # the next look sends it again

    def _readable(self) -> None:
        for _ in range(self._rounds.most()):
            if self._sock is None or self._path is None:
                return
            try:
                count, size, _ = segments.receive(self._sock, _BUFFER)
            except (BlockingIOError, InterruptedError):
                self._rounds.empty()
                return
            except ConnectionRefusedError:
                self._given_up("nobody is at the UDP port")
                return
            except OSError as error:
                logger.debug("sealed datagrams: %s", error)  # what an ICMP message says of one that was sent
                continue
            if self._binding is None:
                self._path.received(_BUFFER[:count], size)
            else:
                self._relayed(self._path, self._binding, _BUFFER[:count], size)
        self._rounds.all_read()

    def _relayed(self, path: ClientPath, binding: RelayBinding, datagrams: memoryview, size: int) -> None:
        """Take what the relay has forwarded, or said itself."""
        for run in segments.runs(datagrams, size, wire.HEAD_BYTES):
            if relay_datagram.receiver_of(run[:size]) is None:
                path.received(run, size)
                continue
            for start in range(0, len(run), size):
                if binding.received(run[start : start + size]):
                    path.probe(PROBED_BYTES[0])

    def _tick_later(self) -> None:
        if self._tick is None and not self._closed:
            self._tick = asyncio.get_running_loop().call_later(TICK_SECONDS, self._look)

    def _look(self) -> None:
        self._tick = None
        now = time.monotonic()
        path = self._path
        if not self._flows and now - self._used_at > UNUSED_SECONDS:
            if path is not None:
                self._end_path()
                if self._way is self._direct:
                    self._to_close = not self._direct.tell(CloseDatagrams())
            return  # the next flow begins anew
        if self._binding is not None:
            self._binding.look()
        if self._asked is not None and self._asked[0].overdue:
            self._asked[0].close()
            self.ended_on(self._asked[0], "no answer")
        if self._to_close:
            self._to_close = not self._direct.tell(CloseDatagrams())
        else:
            self._begin()
        if path is not None and self._path is path:
            self._look_at(path, now)
        self._tick_later()

    def _look_at(self, path: ClientPath, now: float) -> None:
        if path.size and (now - path.heard_at < TICK_SECONDS or path.heard_at >= path.sent_at > now - KEEPALIVE_SECONDS):
            self._unanswered = self._way.failures = 0
            self._look_at_size(path, now)
        elif self._unanswered >= MOST_UNANSWERED:
            self._given_up("no answer")
        else:
            self._unanswered += 1
            if self._binding is None or self._binding.bound:
                for size in {path.size} if path.size else PROBED_BYTES[:2]:
                    path.probe(size)

    def _look_at_size(self, path: ClientPath, now: float) -> None:
        """Ask once in a while whether the largest still arrives: a link behind the first says nothing of what it drops."""
        if now - path.sized_at < KEEPALIVE_SECONDS:
            self._unproven = 0
        elif self._unproven < MOST_UNANSWERED:
            self._unproven += 1
            path.probe(path.size)
        elif path.size > PROBED_BYTES[0]:
            self._unproven = 0
            path.shrink()
        else:
            self._given_up("only what is short arrives")

    def _given_up(self, reason: str) -> None:
        logger.info("datagrams go as frames of their pipes from now on: %s", reason)
        way = self._way
        self._avoid(way)
        self._end_path()
        way.close()
        if way is self._direct:
            self._to_close = not way.tell(CloseDatagrams())  # until it is told, the connector sends into nothing

    def _avoid(self, way: DatagramWay) -> None:
        way.again_at = time.monotonic() + min(MOST_AGAIN_SECONDS, AGAIN_SECONDS * 2.0**way.failures)
        way.failures = min(way.failures + 1, 10)
        self._tick_later()

    def _end_path(self) -> None:
        if self._path is not None:
            self._path.flows = {}  # this object's own: they outlive the path
            self._path.forget()
            self._path = None
            self._way.close()
        self._binding = None
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def forked(self) -> None:
        """Implements forks.Holder. The loop's watch is the parent's too: it stays."""
        self._closed = True
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        """End the path: flows go on as frames."""
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
        self._end_path()
        for way in self._ways:
            way.close()
