"""Sealed datagrams at the connector's UDP port: one path per session, found by the index that it was given."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from klinket.connector.core import LinkRecord
from klinket.connector.limits import DATAGRAM_PATH_SILENT_SECONDS
from klinket.domain.identifiers import SessionId
from klinket.net import datagram_path, forks, segments
from klinket.net.clock import entropy
from klinket.net.datagram_counts import DatagramCounts
from klinket.net.datagram_path import ConnectorPath
from klinket.net.rounds import Rounds
from klinket.wire import datagram as wire
from klinket.wire.link import RANDOM_BYTES
from klinket.wire.link_control import DatagramsOpened, NoDatagrams, OpenDatagrams

logger = logging.getLogger(__name__)

_Taker = Callable[[bytes], None]


@dataclass(slots=True, eq=False)
class _Path:
    receiver: bytes
    handle: bytes
    session: SessionId
    path: ConnectorPath


#: Datagrams are this process's own affair: one process decides, and workers move bytes of pipes only (decision 0030).
_PROCESS = 0


class DatagramPaths:
    """The paths of all sessions, at one UDP port."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None
        self._by_receiver: dict[bytes, _Path] = {}
        self._of_session: dict[SessionId, _Path] = {}
        self._of_handle: dict[bytes, _Path] = {}
        self._flows: dict[SessionId, dict[bytes, _Taker]] = {}
        self._rounds = Rounds()
        self._buffer = memoryview(bytearray(65_536))
        #: What has become of datagrams, but those of the paths that are open.
        self.counted = DatagramCounts()
        forks.watch(self)

    def listen(self, host: str, port: int) -> None:
        """Take datagrams at this address from now on; where that port is another program's, all go as frames."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            datagram_path.prepare(sock)
            sock.bind((host, port))
        except OSError as error:
            logger.warning("no sealed datagrams: UDP port %d of %s: %s", port, host, error.strerror)
            sock.close()
            return
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._readable)

    def forked(self) -> None:
        """Implements forks.Holder. The loop's watch is the parent's too: it stays."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        """End all paths."""
        for one in list(self._by_receiver.values()):
            self._drop(one)
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    # ---- paths

    def open(self, record: LinkRecord, message: OpenDatagrams) -> DatagramsOpened | NoDatagrams:
        """Open the path of a link's session, in the place of the one it had; raises ProtocolError."""
        client, client_random = message.path()
        if self._sock is None:
            return NoDatagrams()
        receiver = wire.receiver(_PROCESS, int.from_bytes(entropy(wire.INDEX_BYTES), "big"))
        if receiver in self._by_receiver:
            return NoDatagrams()  # once in many million years
        session = record.principal.session
        former = self._of_session.get(session)
        if former is not None:
            self._drop(former)
        random = entropy(RANDOM_BYTES)
        keys = wire.connector_keys(record.link, client, receiver, client_random, random)
        made = _Path(receiver, record.link.handle, session, ConnectorPath(keys, self._sock))
        made.path.flows = self._flows.setdefault(session, {})
        self._by_receiver[receiver] = self._of_session[session] = self._of_handle[made.handle] = made
        return DatagramsOpened(receiver=receiver.hex(), random=random.hex())

    def close_path(self, handle: bytes) -> None:
        """End the path that a link has opened, if it is still there: its flows go on as frames."""
        one = self._of_handle.get(handle)
        if one is not None:
            self._drop(one)

    def end_silent(self) -> None:
        """End the paths on which nothing has come for long."""
        before = time.monotonic() - DATAGRAM_PATH_SILENT_SECONDS
        for one in [one for one in self._by_receiver.values() if one.path.heard_at < before]:
            self._drop(one)

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

    def add(self, session: SessionId, flow: bytes, taker: _Taker) -> None:
        """Give a flow's datagrams to `taker`; of two flows whose ids begin alike, the first has the path."""
        self._flows.setdefault(session, {}).setdefault(flow, taker)

    def remove(self, session: SessionId, flow: bytes, taker: _Taker) -> None:
        """Give them to nobody any more."""
        flows = self._flows.get(session, {})
        if flows.get(flow) == taker:
            del flows[flow]
            self._tidy(session)

    def send(self, session: SessionId, flow: bytes, datagram: bytes) -> bool:
        """Send a datagram to the client; False where it has to go as a frame."""
        one = self._of_session.get(session)
        return one is not None and one.path.send(flow, datagram)

    def send_plain(self, session: SessionId, flow: bytes, size: int) -> bool:
        """As send(), with the first bytes of net.datagram_path.PLAIN."""
        one = self._of_session.get(session)
        return one is not None and one.path.send_plain(flow, size)

    def _readable(self) -> None:
        sock, buffer = self._sock, self._buffer
        for _ in range(self._rounds.most()):
            if sock is None or self._sock is not sock:
                return
            try:
                count, size, address = segments.receive(sock, buffer)
            except (BlockingIOError, InterruptedError):
                self._rounds.empty()
                return
            except OSError as error:
                logger.debug("datagrams: %s", error)  # what an ICMP message says of one that was sent
                continue
            for start in range(0, max(count, 1), size or 1):
                self._received(buffer[start : min(start + size, count)], address)
        self._rounds.all_read()

    def _received(self, sealed: memoryview, address: Any) -> None:
        receiver = wire.receiver_of(sealed)
        one = None if receiver is None else self._by_receiver.get(receiver)
        if one is None:
            self.counted.no_path += 1
        else:
            one.path.received(sealed, address)
