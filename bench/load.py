"""Targets and load for the benchmarks: an echo server, a sink, bulk senders and connect+echo loops."""

from __future__ import annotations

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

BLOCK = 256 * 1024
Dial = Callable[[], socket.socket]


def serve(address: str, port: int) -> None:
    """Serve on two ports: `port` echoes, `port + 1` swallows all and answers its count (8 bytes) after the end."""

    def echo(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(BLOCK):
                connection.sendall(data)

    def swallow(connection: socket.socket) -> None:
        buffer = bytearray(1 << 20)
        count = 0
        with connection:
            while n := connection.recv_into(buffer):
                count += n
            connection.sendall(struct.pack(">Q", count))

    def accept(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    sink = socket.create_server((address, port + 1), backlog=1024)
    threading.Thread(target=accept, args=(sink, swallow), daemon=True).start()
    accept(socket.create_server((address, port), backlog=1024), echo)


def dial_directly(address: str, port: int, seconds: float = 30.0) -> Dial:
    """Return a function that connects without klinket. `seconds`: until it, or a call on its socket, gives up."""

    def dial() -> socket.socket:
        connection = socket.create_connection((address, port), timeout=seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    return dial


def dial_through_socks(proxy: tuple[str, int], host: str, port: int, seconds: float = 30.0) -> Dial:
    """Return a function that connects through a SOCKS5 proxy by name (RFC 1928, no authentication)."""
    name = host.encode()
    request = b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port)

    def dial() -> socket.socket:
        connection = dial_directly(*proxy, seconds)()
        connection.sendall(b"\x05\x01\x00" + request)
        answer = b""
        while len(answer) < 12:
            more = connection.recv(64)
            if not more:
                raise ConnectionError("the proxy closed the connection")
            answer += more
        if answer[3] != 0:
            raise ConnectionError(f"the proxy answered {answer[3]}")
        return connection

    return dial


def bulk(dial: Dial, streams: int, seconds: float) -> float:
    """Send for `seconds` over `streams` connections and return Gbit/s as counted by the sink."""
    counts = [0] * streams

    def run(index: int) -> None:
        block = bytes(BLOCK)
        with dial() as connection:
            while time.perf_counter() < end:
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while len(answer) < 8:
                answer += connection.recv(8)
            counts[index] = struct.unpack(">Q", answer)[0]

    begun = time.perf_counter()
    end = begun + seconds
    threads = [threading.Thread(target=run, args=(index,)) for index in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * 8 / (time.perf_counter() - begun) / 1e9


def connect_and_echo(dial: Dial, rounds: int) -> list[float]:
    """Connect, echo one byte, close; return the milliseconds of each round, sorted."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        with dial() as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
        times.append((time.perf_counter() - begun) * 1e3)
    return sorted(times)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
