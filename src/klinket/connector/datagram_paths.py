"""Sealed datagrams at the connector's UDP ports: one path per session, found by the index that it was given.

Clients come to the port of the connector's listener; towards relays it has a port for each family of addresses.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from klinket.connector.core import LinkRecord
from klinket.connector.limits import BIND_SECONDS, DATAGRAM_PATH_SILENT_SECONDS
from klinket.domain.errors import ProtocolError
from klinket.domain.identifiers import SessionId
from klinket.net import datagram_socket, forks, segments, sockets
from klinket.net.clock import entropy
from klinket.net.datagram_counts import DatagramCounts
from klinket.net.datagram_path import ConnectorPath
from klinket.net.relay_binding import RelayBinding
from klinket.net.relay_path import Leg
from klinket.net.rounds import Rounds
from klinket.net.segments import Taker
from klinket.wire import datagram as wire
from klinket.wire import relay_datagram
from klinket.wire.link import RANDOM_BYTES
from klinket.wire.link_control import DatagramsOpened, NoDatagrams, OpenDatagrams

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Path:
    receiver: bytes
    handle: bytes
    session: SessionId
    path: ConnectorPath
    binding: RelayBinding | None = None
    #: Hears whether a path over a relay is open, once, and of its end by the relay's silence.
    opened: Callable[[NoDatagrams | None], None] | None = None
    lost: Callable[[], None] = lambda: None
    asked_at: float = 0.0


#: Seconds between looks at the bindings at relays.
BINDING_LOOK_SECONDS = 1.0
#: Datagrams are this process's own affair: one process decides, and workers move bytes of pipes only (decision 0030).
_PROCESS = 0


class DatagramPaths:
    """The paths of all sessions."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        #: Towards relays, by the family of their addresses.
        self._outward: dict[int, socket.socket] = {}
        self._looking: asyncio.TimerHandle | None = None
        self._by_receiver: dict[bytes, _Path] = {}
        self._of_session: dict[SessionId, _Path] = {}
        self._of_handle: dict[bytes, _Path] = {}
        self._flows: dict[SessionId, dict[bytes, Taker]] = {}
        self._buffer = memoryview(bytearray(65_536))
        #: What has become of datagrams, but those of the paths that are open.
        self.counted = DatagramCounts()
        forks.watch(self)

    def listen(self, host: str, port: int) -> None:
        """Take datagrams at this address from now on; where that port is another program's, all go as frames."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagram_socket.prepare(sock)
            sock.bind((host, port))
        except OSError as error:
            logger.warning("no sealed datagrams: UDP port %d of %s: %s", port, host, error.strerror)
            sock.close()
            return
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._readable, sock, Rounds())

    def _towards(self, family: int) -> socket.socket:
        """Return the socket towards relays of a family of addresses; raises OSError."""
        sock = self._outward.get(family)
        if sock is None:
            sock = sockets.own_socket(family, socket.SOCK_DGRAM)
            try:
                datagram_socket.prepare(sock)
                sock.bind(("", 0))
            except BaseException:
                sock.close()
                raise
            self._outward[family] = sock
            asyncio.get_running_loop().add_reader(sock, self._readable, sock, Rounds())
        return sock

    def forked(self) -> None:
        """Implements forks.Holder. The loop's watch is the parent's too: it stays."""
        for sock in self._take_sockets():
            sock.close()

    def close(self) -> None:
        """End all paths."""
        for one in list(self._by_receiver.values()):
            self._drop(one)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        for sock in self._take_sockets():
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def _take_sockets(self) -> list[socket.socket]:
        """Return all sockets there were, for whoever closes them."""
        taken = [*self._outward.values(), *([] if self._sock is None else [self._sock])]
        self._outward.clear()
        self._sock = None
        return taken

    # ---- paths

    def open(self, record: LinkRecord, message: OpenDatagrams) -> DatagramsOpened | NoDatagrams:
        """Open the path of a link's session, in the place of the one it had; raises ProtocolError."""
        client, random = message.path()
        if self._sock is None:
            return NoDatagrams()
        made, answer = self._make(record, client, random, self._sock)
        self._of_handle[made.handle] = made
        self._take_place(made)
        return answer

    def open_relayed(
        self,
        record: LinkRecord,
        message: OpenDatagrams,
        leg: Leg,
        opened: Callable[[DatagramsOpened | NoDatagrams], None],
        lost: Callable[[], None],
    ) -> bytes | None:
        """Open such a path over the relay that `leg` leads to; returns what close_relayed() takes. Raises ProtocolError.

        `opened`: hears once whether it is open, when this end is bound at the relay; `lost`: that the relay fell silent later.
        """
        client, random = message.path()
        if leg.where is None:
            opened(NoDatagrams())
            return None
        family, where = leg.where
        try:
            sock = self._towards(family)
        except OSError as error:
            logger.warning("no sealed datagrams over relays: %s", error)
            opened(NoDatagrams())
            return None
        made, answer = self._make(record, client, random, sock)
        made.asked_at, made.lost = time.monotonic(), lost
        made.opened = lambda found: opened(answer if found is None else found)
        made.binding = RelayBinding(leg, made.receiver, client, partial(_send, sock, where))
        made.binding.look()
        self._look_later()
        return made.receiver

    def close_relayed(self, receiver: bytes | None) -> None:
        """End a path over a relay, if it is still there."""
        one = None if receiver is None else self._by_receiver.get(receiver)
        if one is not None:
            self._drop(one)

    def _make(
        self, record: LinkRecord, client: bytes, client_random: bytes, sock: socket.socket
    ) -> tuple[_Path, DatagramsOpened]:
        """`client`, `client_random`: the client's receiver and random, as it has sent them."""
        receiver = wire.receiver(_PROCESS, int.from_bytes(entropy(wire.INDEX_BYTES), "big"))
        if receiver in self._by_receiver:  # once in many million years
            raise ProtocolError("no index is free for a datagram path")
        session, random = record.principal.session, entropy(RANDOM_BYTES)
        keys = wire.connector_keys(record.link, client, receiver, client_random, random)
        made = self._by_receiver[receiver] = _Path(receiver, record.link.handle, session, ConnectorPath(keys, sock))
        return made, DatagramsOpened(receiver=receiver.hex(), random=random.hex())

    def _take_place(self, made: _Path) -> None:
        """Let a path be its session's, in the place of the one it had."""
        former = self._of_session.get(made.session)
        made.path.flows = self._flows.setdefault(made.session, {})
        self._of_session[made.session] = made
        if former is not None:
            self._drop(former)

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(BINDING_LOOK_SECONDS, self._look_at_bindings)

    def _look_at_bindings(self) -> None:
        self._looking = None
        bindings = [(one, one.binding) for one in self._by_receiver.values() if one.binding is not None]
        for one, binding in bindings:
            if one.opened is not None and time.monotonic() - one.asked_at > BIND_SECONDS:
                logger.info("the relay's UDP port does not answer: datagrams of session %s are frames", one.session)
                tell, one.opened = one.opened, None
                self._drop(one)
                tell(NoDatagrams())
            elif binding.lost:
                self._drop(one)
                one.lost()
            else:
                binding.look()
        if bindings:
            self._look_later()

    def _from_relay(self, one: _Path, answer: memoryview) -> None:
        if one.binding is not None and one.binding.received(answer) and one.opened is not None:
            tell, one.opened = one.opened, None
            self._take_place(one)
            tell(None)

    def close_path(self, handle: bytes) -> None:
        """End the path that a link has opened here, if it is still there: its flows go on as frames."""
        one = self._of_handle.get(handle)
        if one is not None:
            self._drop(one)

    def end_silent(self) -> None:
        """End the paths on which nothing has come for long, and send nothing where a client may not be any more."""
        before = time.monotonic() - DATAGRAM_PATH_SILENT_SECONDS
        for one in list(self._by_receiver.values()):
            if one.path.heard_at < before:
                self._drop(one)
            else:
                one.path.doubt()

    def _drop(self, one: _Path) -> None:
        del self._by_receiver[one.receiver]
        if self._of_handle.get(one.handle) is one:
            del self._of_handle[one.handle]
        if self._of_session.get(one.session) is one:
            del self._of_session[one.session]
        self.counted.add(one.path.counts())
        one.path.flows = {}  # the session's own: they outlive this path
        one.path.forget()
        self._tidy(one.session)

    def _tidy(self, session: SessionId) -> None:
        if not self._flows.get(session, True) and session not in self._of_session:
            del self._flows[session]

    @property
    def open_paths(self) -> int:
        """Return how many paths there are."""
        return len(self._by_receiver)

    def counts(self) -> DatagramCounts:
        """Return what has become of datagrams since the connector began."""
        total = replace(self.counted)
        for one in self._by_receiver.values():
            total.add(one.path.counts())
        return total

    # ---- flows

    def add(self, session: SessionId, flow: bytes, taker: Taker) -> None:
        """Give a flow's datagrams to `taker`; of two flows whose ids begin alike, the first has the path."""
        self._flows.setdefault(session, {}).setdefault(flow, taker)

    def remove(self, session: SessionId, flow: bytes, taker: Taker) -> None:
        """Give them to nobody any more."""
        flows = self._flows.get(session, {})
        if flows.get(flow) == taker:
            del flows[flow]
            self._tidy(session)

    def send(self, session: SessionId, flow: bytes, datagram: bytes) -> bool:
        """Send a datagram to the client; False where it has to go as a frame."""
        one = self._of_session.get(session)
        return one is not None and one.path.send(flow, datagram)

    def send_all(self, session: SessionId, flow: bytes, datagrams: Sequence[bytes | memoryview]) -> int:
        """Send datagrams; returns how many, the next has to go as a frame."""
        one = self._of_session.get(session)
        return 0 if one is None else one.path.send_all(flow, datagrams)

    def _readable(self, sock: socket.socket, rounds: Rounds) -> None:
        buffer = self._buffer
        for _ in range(rounds.most()):
            if sock.fileno() < 0:
                return
            try:
                count, size, address = segments.receive(sock, buffer)
            except (BlockingIOError, InterruptedError):
                rounds.empty()
                return
            except OSError as error:
                logger.debug("datagrams: %s", error)  # what an ICMP message says of one that was sent
                continue
            if count <= size:
                self._received(buffer[:count], size, address)
            else:
                for run in segments.runs(buffer[:count], size, wire.HEAD_BYTES):
                    self._received(run, size, address)
        rounds.all_read()

    def _received(self, run: memoryview, size: int, address: Any) -> None:
        """Take datagrams with the same head, of `size` bytes each, the last may be shorter."""
        receiver = wire.receiver_of(run[:size])
        one = None if receiver is None else self._by_receiver.get(receiver)
        if one is not None:
            one.path.received(run, size, address)
        elif (receiver := relay_datagram.receiver_of(run[:size])) is not None and receiver in self._by_receiver:
            for start in range(0, len(run), size):
                self._from_relay(self._by_receiver[receiver], run[start : start + size])
        else:
            self.counted.no_path += -(-len(run) // size) if size else 1


def _send(sock: socket.socket, to: Any, message: bytes) -> None:
    try:
        sock.sendto(message, to)
    except OSError as error:
        logger.debug("no bind to the relay: %s", error)  # the next look sends it again
