"""A private service that notes how each of its connections ended: cleanly, or with a reset; and what parts say of themselves."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from chaos.threads import Listening

#: Bytes of a connection's first message, by which a test knows it again.
TAG_BYTES = 8


@dataclass(frozen=True)
class Ending:
    """`how`: "end" or "reset"; `at`: monotonic seconds."""

    how: str
    at: float


class WatchedService(Listening):
    """Echoes. Threads of the test's own process."""

    def __init__(self, address: str) -> None:
        super().__init__(address, self._watch)
        self.address = address
        self.endings: dict[bytes, Ending] = {}

    def _watch(self, connection: socket.socket) -> None:
        tag = b""
        how = "end"
        with connection:
            try:
                while data := connection.recv(65_536):
                    tag += data[: TAG_BYTES - len(tag)]
                    connection.sendall(data)
            except OSError:
                how = "reset"
        self.endings[tag] = Ending(how, time.monotonic())

    def wait_for_ending(self, tag: bytes, seconds: float = 10.0) -> Ending:
        """Return how the connection with this tag ended."""
        wait_until(lambda: tag in self.endings, f"the service's end of {tag!r} is still open", seconds)
        return self.endings[tag]


def wait_until(true: Callable[[], bool], otherwise: str, seconds: float = 10.0) -> None:
    """Poll; raises AssertionError with `otherwise` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.01)


def how_it_ends(connection: socket.socket, seconds: float = 10.0) -> Ending:
    """Read a program's connection to its end."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65_536):
            pass
    except ConnectionResetError:
        return Ending("reset", time.monotonic())
    return Ending("end", time.monotonic())


def metric(port: int, name: str) -> float:
    """Return the sum of all lines of a part's metrics that begin so; 0 while it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    return sum(map(float, re.findall(rf"^{re.escape(name)}[^ ]* ([0-9.e+]+)$", text, re.MULTILINE)))
