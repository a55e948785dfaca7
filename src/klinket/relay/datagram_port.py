"""A relay's UDP port: one socket, read in batches; a sealed datagram costs one look-up and one call to leave."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

from klinket.net import datagram_socket, segments
from klinket.net.datagram_socket import NO_ROOM
from klinket.net.rounds import Rounds
from klinket.relay.forwarding import DatagramForwarding, End
from klinket.relay.traffic import Drop
from klinket.wire import datagram_header as wire

logger = logging.getLogger(__name__)


class DatagramPort:
    """Reads datagrams, and does with them what `forwarding` says. Nothing of a datagram is kept."""

    def __init__(self, forwarding: DatagramForwarding) -> None:
        self._forwarding = forwarding
        self._senders = forwarding.senders
        self._counts = forwarding.counts
        self._sock: socket.socket | None = None
        self._rounds = Rounds()
        self._buffer = memoryview(bytearray(65_536))

    def listen(self, host: str, port: int) -> bool:
        """Take datagrams at this address from now on; False where that cannot be: all go as frames then."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            datagram_socket.prepare(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as the TCP listener
            sock.bind((host, port))
        except OSError as error:
            logger.warning("no datagrams are forwarded: UDP port %d of %s: %s", port, host, error.strerror)
            sock.close()
            return False
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._readable, sock)
        return True

    def close(self) -> None:
        """Forward nothing any more."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()
            self._sock = None

    def _readable(self, sock: socket.socket) -> None:
        buffer = self._buffer
        for _ in range(self._rounds.most()):
            if self._sock is not sock:
                return
            try:
                count, size, address = segments.receive(sock, buffer)
            except (BlockingIOError, InterruptedError):
                self._rounds.empty()
                return
            except OSError as error:
                logger.debug("datagrams: %s", error)  # what an ICMP message says of one that was sent
                continue
            self._received(sock, buffer[:count], size, address)
        self._rounds.all_read()

    def _received(self, sock: socket.socket, datagrams: memoryview, size: int, address: Any) -> None:
        """Take what has come together from one address, `size` bytes each but the last."""
        receiver = wire.receiver_of(datagrams[:size])
        if receiver is not None and _of_one(datagrams, size, receiver):
            self._forward(sock, datagrams, size, self._senders.get((address, receiver)))
            return
        for start in range(0, max(len(datagrams), 1), size or 1):
            one = datagrams[start : start + size]
            receiver = wire.receiver_of(one)
            if receiver is not None:
                self._forward(sock, one, len(one), self._senders.get((address, receiver)))
            elif (answer := self._forwarding.asked(bytes(one), address)) is not None:
                try:
                    sock.sendto(answer, address)
                except OSError as error:
                    logger.debug("no answer to a bind: %s", error)

    def _forward(self, sock: socket.socket, datagrams: memoryview, size: int, sender: End | None) -> None:
        counts, length = self._counts, len(datagrams)
        number = 1 if length == size else -(-length // size)
        if sender is None:
            counts.dropped[Drop.UNKNOWN] += number
            return
        to = sender.peer.address
        if to is None:
            counts.dropped[Drop.ONE_SIDED] += number
            return
        if number > 1:
            if sender.peer.single or not self._together(sock, datagrams, size, sender.peer):
                for start in range(0, length, size):
                    one = datagrams[start : start + size]
                    self._forward(sock, one, len(one), sender)
                return
        else:
            try:
                sock.sendto(datagrams, to)
            except OSError as error:
                counts.dropped[Drop.NO_ROOM if error.errno in NO_ROOM else Drop.NOT_SENT] += 1
                return
        if sender.from_client:
            counts.datagrams_from_clients += number
            counts.bytes_from_clients += length
        else:
            counts.datagrams_from_connectors += number
            counts.bytes_from_connectors += length

    def _together(self, sock: socket.socket, datagrams: memoryview, size: int, to: End) -> bool:
        """Send them in one call; False where each has to go by itself."""
        try:
            segments.send(sock, datagrams, size, to.address)
        except OSError as error:
            # Where there is no room, each by itself finds out for how many; else that interface, or that size, takes none so.
            to.single = error.errno not in NO_ROOM
            return False
        return True


def _of_one(datagrams: memoryview, size: int, receiver: bytes) -> bool:
    """Return whether all are sealed, and for the one receiver."""
    if len(datagrams) == size:
        return True
    return all(wire.receiver_of(datagrams[start : start + size]) == receiver for start in range(size, len(datagrams), size))
