"""How answers reach captured programs: as packets whose source is the address that was asked.

Through a raw socket each is a packet of its own. Where programs are behind this end's own loopback device, a packet socket takes
what came together as one packet, which the kernel cuts behind everything that costs (UDP_SEGMENT of virtio_net_hdr, Linux 6.2).
"""

from __future__ import annotations

import errno
import itertools
import logging
import socket
import struct

from klinket.client.capture import packets
from klinket.client.capture.packets import Endpoint
from klinket.net import segments
from klinket.net.checksum import checksum
from klinket.net.datagram_socket import NO_ROOM

logger = logging.getLogger(__name__)

#: Bytes of content that leave as one packet: what an IP packet can carry, less both headers.
MOST_TOGETHER = 65_000

#: Options and values of linux/if_packet.h and linux/virtio_net.h that the socket module does not name.
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_NEEDS_CHECKSUM, _GSO_NONE, _GSO_UDP = 1, 0, 5
_ETHERTYPES = {socket.AF_INET: 0x0800, socket.AF_INET6: 0x86DD}
_ETHERNET_BYTES, _UDP_BYTES, _CHECKSUM_OFFSET = 14, 8, 6
_IDENTIFICATIONS = itertools.count(1)


def send(raw: socket.socket, packet: bytes, to: Endpoint) -> None:
    """Send a packet, in fragments if the link to another machine carries no larger ones; raises OSError."""
    try:
        raw.sendto(packet, (to[0], 0))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        for part in packets.fragments(packet, next(_IDENTIFICATIONS) & 0xFFFF):
            raw.sendto(part, (to[0], 0))


def loopback_socket() -> socket.socket:
    """Return a packet socket for the loopback device of this network namespace, which receives nothing; raises OSError."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.bind(("lo", 0))
    except BaseException:
        sock.close()
        raise
    return sock


class _Headers:
    """All that is in front of content from one end to another on the loopback device; what is the same each time is made once."""

    __slots__ = ("_addresses", "_begin", "_ip_bytes", "_ip_sum", "_is_v6", "_ports", "_pseudo_sum")

    def __init__(self, source: Endpoint, destination: Endpoint) -> None:
        self._is_v6 = ":" in source[0]
        family = socket.AF_INET6 if self._is_v6 else socket.AF_INET
        self._addresses = socket.inet_pton(family, source[0]) + socket.inet_pton(family, destination[0])
        self._ports = struct.pack(">HH", source[1], destination[1])
        self._begin = bytes(12) + _ETHERTYPES[family].to_bytes(2, "big")
        self._ip_bytes = 40 if self._is_v6 else 20
        self._pseudo_sum = _sum(self._addresses) + socket.IPPROTO_UDP
        self._ip_sum = _sum(self._ip4(0, 0))

    def _ip4(self, length: int, check: int) -> bytes:
        # Never fragmented, so that it needs no identification (RFC 6864).
        return struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, socket.IPPROTO_UDP, check) + self._addresses

    def of(self, content: int, size: int) -> bytes:
        """Return them for `content` bytes of datagrams of `size` bytes each, the last may be shorter."""
        length = _UDP_BYTES + content
        begins = _ETHERNET_BYTES + self._ip_bytes
        together = content > size
        cut = struct.pack(
            "=BBHHHH", _NEEDS_CHECKSUM, _GSO_UDP if together else _GSO_NONE, begins + _UDP_BYTES, size if together else 0,
            begins, _CHECKSUM_OFFSET,
        )  # fmt: skip
        if self._is_v6:
            ip = struct.pack(">IHBB", 6 << 28, length, socket.IPPROTO_UDP, 64) + self._addresses
        else:
            ip = self._ip4(20 + length, ~_folded(self._ip_sum + 20 + length) & 0xFFFF)
        # The checksum so far is that of the pseudo-header: whoever needs all of it adds the rest.
        udp = self._ports + struct.pack(">HH", length, _folded(self._pseudo_sum + length))
        return b"".join((cut, self._begin, ip, udp))


def _sum(content: bytes) -> int:
    return ~checksum(content) & 0xFFFF


def _folded(total: int) -> int:
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


class Answers:
    """Sends answers of one family; takes its sockets over. `dropped`: what there was no room for.

    `loopback`: for answers to the address `own`, which is this end's; None: all leave through the raw socket.
    """

    def __init__(self, raw: socket.socket, loopback: socket.socket | None = None, own: str = "") -> None:
        self._raw = raw
        self._loopback = loopback
        self._sockets = [raw] if loopback is None else [raw, loopback]
        self._own = own
        self.dropped = 0
        for sock in self._sockets:
            sock.setblocking(False)

    def way(self, source: Endpoint, destination: Endpoint) -> segments.Taker:
        """Return what sends datagrams from one end to another, as often as it is called."""
        packet = packets.datagram_maker(source, destination)

        def one_by_one(datagrams: bytes | memoryview, size: int) -> None:
            for content in segments.split(datagrams, size):
                self.packet(packet(content), destination)

        if self._loopback is None or destination[0] != self._own:
            return one_by_one
        headers = _Headers(source, destination)

        def together(datagrams: bytes | memoryview, size: int) -> None:
            if not size < len(datagrams) <= MOST_TOGETHER or not self._together(
                headers.of(len(datagrams), size), datagrams, size
            ):
                one_by_one(datagrams, size)

        return together

    def _together(self, headers: bytes, datagrams: bytes | memoryview, size: int) -> bool:
        """Send them as one packet; False where that is not to be had."""
        if self._loopback is None:
            return False
        try:
            self._loopback.sendmsg([headers, datagrams])
        except OSError as error:
            if error.errno not in NO_ROOM:
                logger.debug("answers leave one by one: %s", error)  # an older kernel
                self._loopback = None
                return False
            self.dropped += -(-len(datagrams) // size) if size else 1
        return True

    def packet(self, packet: bytes, to: Endpoint) -> None:
        """Send one packet; one that does not fit now is lost, as datagrams are."""
        try:
            send(self._raw, packet, to)
        except OSError as error:
            self.dropped += 1
            logger.debug("answer: %s", error)

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets:
            sock.close()
