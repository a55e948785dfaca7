"""Records the bytes of TCP connections on loopback with one port, as an eavesdropper on the path would."""

from __future__ import annotations

import socket
import struct
import threading
from collections import defaultdict

ETH_P_IP = 0x0800
#: Direction of one half of a connection: (source port, destination port).
Half = tuple[int, int]


class Wiretap:
    """A raw packet socket on `lo` (needs root) that collects TCP payloads to and from `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._segments: dict[Half, dict[int, bytes]] = defaultdict(dict)
        self._first: dict[Half, int] = {}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.bind(("lo", ETH_P_IP))
        self._socket.settimeout(0.1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Wiretap:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                packet, address = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if address[2] != socket.PACKET_HOST or packet[9] != socket.IPPROTO_TCP:
                continue
            header = (packet[0] & 15) * 4
            source, destination, sequence = struct.unpack_from(">HHI", packet, header)
            if self.port not in (source, destination):
                continue
            end = struct.unpack_from(">H", packet, 2)[0]
            flags = packet[header + 13]
            payload = packet[header + (packet[header + 12] >> 4) * 4 : end or None]
            half = (source, destination)
            if flags & 2:  # SYN
                self._first[half] = sequence + 1
                self._segments[half] = {}
            elif payload:
                self._segments[half][sequence] = payload

    def everything(self) -> bytes:
        """Return every payload byte seen, in no particular order of connections."""
        return b"".join(self.stream(half) for half in list(self._segments))

    def halves(self) -> list[Half]:
        """Return the halves on which bytes were seen, from their first byte on: not what began before the recording."""
        return [half for half, segments in list(self._segments.items()) if segments and half in self._first]

    def stream(self, half: Half) -> bytes:
        """Return the bytes of one half in order, without retransmissions."""
        segments = self._segments[half]
        stream = bytearray()
        expected = self._first.get(half)
        for sequence in sorted(segments):
            if expected is not None and sequence < expected:
                continue
            stream += segments[sequence]
            expected = sequence + len(segments[sequence])
        return bytes(stream)
