"""What sends and what answers. As a program: `python -m bench.data_plane.load KIND ...` prints one JSON object."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time

from bench.load import BLOCK, Dial, connect_and_echo, dial_directly, dial_through_socks
from bench.load import bulk as send_bulk

#: Offsets from the first port: what listens there.
ECHO, SINK, SOURCE = 0, 1, 2
DATAGRAM_BYTES = 1200


def serve(address: str, port: int) -> None:
    """Echo (TCP and UDP), swallow, and send without end, on three ports."""
    from bench.load import serve as serve_echo_and_sink

    def give(connection: socket.socket) -> None:
        block = bytes(BLOCK)
        with connection:
            try:
                while True:
                    connection.sendall(block)
            except OSError:
                return

    def accept(listener: socket.socket) -> None:
        while True:
            threading.Thread(target=give, args=(listener.accept()[0],), daemon=True).start()

    def echo_datagrams() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((address, port))
        while True:
            data, where = sock.recvfrom(65_536)
            sock.sendto(data, where)

    listener = socket.create_server((address, port + SOURCE), backlog=1024)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    threading.Thread(target=echo_datagrams, daemon=True).start()
    serve_echo_and_sink(address, port)


def fetch_bulk(dial: Dial, streams: int, seconds: float) -> float:
    """Receive for `seconds` over `streams` connections; returns Gbit/s."""
    counts = [0] * streams

    def run(index: int) -> None:
        buffer = bytearray(1 << 20)
        with dial() as connection:
            while time.perf_counter() < end:
                count = connection.recv_into(buffer)
                if not count:
                    raise ConnectionError("the source ended")
                counts[index] += count

    begun = time.perf_counter()
    end = begun + seconds
    threads = [threading.Thread(target=run, args=(index,)) for index in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) * 8 / (time.perf_counter() - begun) / 1e9


def concurrent(dial: Dial, width: int, seconds: float) -> tuple[float, int]:
    """Connect, echo one byte, close, `width` at a time; returns connections a second, and how many failed."""
    done, failed = [0] * width, [0] * width

    def run(index: int) -> None:
        while time.perf_counter() < end:
            try:
                with dial() as connection:
                    connection.sendall(b"x")
                    if connection.recv(1) != b"x":
                        raise ConnectionError("no echo")
                done[index] += 1
            except OSError:
                failed[index] += 1

    begun = time.perf_counter()
    end = begun + seconds
    threads = [threading.Thread(target=run, args=(index,)) for index in range(width)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begun), sum(failed)


def datagrams(host: str, port: int, window: int, seconds: float) -> tuple[float, float]:
    """Echo datagrams of DATAGRAM_BYTES, `window` under way at a time; returns echoes a second and the part that was lost."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.settimeout(0.25)
    sock.connect((host, port))
    block = bytes(DATAGRAM_BYTES)
    sent = received = 0
    begun = time.perf_counter()
    end = begun + seconds
    for _ in range(window):
        sock.send(block)
        sent += 1
    while time.perf_counter() < end:
        try:
            sock.recv(65_536)
            received += 1
            missing = 1
        except TimeoutError:
            missing = window  # what was under way is lost
        except OSError:
            missing = window
            time.sleep(0.05)
        for _ in range(missing):
            try:
                sock.send(block)
            except OSError:
                continue
            sent += 1
    lost = max(0.0, (sent - received - window) / sent)
    return received / (time.perf_counter() - begun), lost


def hold(dial: Dial, count: int) -> list[socket.socket]:
    """Open `count` connections, each with one echo, and keep them."""
    held: list[socket.socket] = []
    begun = time.perf_counter()
    while len(held) < count:
        try:
            connection = dial()
        except ConnectionError:  # a limit on new connections: they come as fast as it allows
            if time.perf_counter() - begun > 60:
                raise
            time.sleep(0.1)
            continue
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        held.append(connection)
    return held


def main() -> None:
    """Run one kind of load and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["serve", "up", "down", "echo", "concurrent", "udp", "hold"])
    parser.add_argument("host")
    parser.add_argument("ports", help="ECHO,SINK,SOURCE")
    parser.add_argument("--socks", metavar="PORT", type=int, help="through a SOCKS5 proxy on 127.0.0.1")
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=200)
    given = parser.parse_args()
    ports = [int(port) for port in given.ports.split(",")]

    def dial(what: int) -> Dial:
        if given.socks:
            return dial_through_socks(("127.0.0.1", given.socks), given.host, ports[what])
        return dial_directly(given.host, ports[what])

    result: dict[str, float] = {}
    match given.kind:
        case "serve":
            serve(given.host, ports[ECHO])
        case "up":
            result["gbit_s"] = send_bulk(dial(SINK), given.streams, given.seconds)
        case "down":
            result["gbit_s"] = fetch_bulk(dial(SOURCE), given.streams, given.seconds)
        case "echo":
            connect_and_echo(dial(ECHO), 20)
            times = connect_and_echo(dial(ECHO), given.rounds)
            result["p50_ms"], result["p99_ms"] = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
        case "concurrent":
            result["connects_s"], result["failed"] = concurrent(dial(ECHO), given.streams, given.seconds)
        case "udp":
            result["echoes_s"], result["lost"] = datagrams(given.host, ports[ECHO], given.streams, given.seconds)
        case "hold":
            held = hold(dial(ECHO), given.streams)
            print(json.dumps({"held": len(held)}), flush=True)
            sys.stdin.read()  # until whoever asked has measured
            return
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
