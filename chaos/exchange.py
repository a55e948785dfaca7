"""One flow's exchange, both of whose ends know what has to arrive: sizes and SHA-256 in front of the bytes.

program -> service   number (8) | seed (8) | bytes up (8) | bytes down (8) | half-close first (1) | SHA-256 (32) | bytes
service -> program   SHA-256 (32) | bytes, then the end
program -> service   the end: before the answer with half-close first, else after it
"""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading
from dataclasses import dataclass

HEAD = struct.Struct(">QQQQ?32s")
#: Seconds without a byte after which an end counts as hanging.
SILENCE_SECONDS = 90.0
BLOCK = 65_536
#: Random bytes that payloads are cut out of: to make each payload anew would hold up every other thread of the trial.
_POOL = random.Random(0).randbytes(48_000_000)


@dataclass(frozen=True)
class Outcome:
    """How one end of a flow ended. `word`: whole, error (a reset or another error of the socket), or what must never be:
    truncated (a clean end too early), altered (other bytes), hanging."""

    word: str
    at: str = ""


class Wrong(Exception):
    """An end saw what must never be."""


def payload(seed: int, size: int) -> bytes:
    """Return `size` random bytes, at most half of the pool's: others for other seeds."""
    begin = random.Random(seed).randrange(len(_POOL) - size)
    return _POOL[begin : begin + size]


def exactly(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes; raises Wrong("truncated") at a clean end before."""
    parts, left = [], count
    while left:
        data = connection.recv(min(left, BLOCK))
        if not data:
            raise Wrong("truncated")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def until_end(connection: socket.socket) -> None:
    """Read the end; raises Wrong("altered") when more comes."""
    if connection.recv(1):
        raise Wrong("altered")


def checked(data: bytes, digest: bytes) -> None:
    if hashlib.sha256(data).digest() != digest:
        raise Wrong("altered")


def as_program(
    connection: socket.socket, number: int, seed: int, up: int, down: int, half_close: bool, silence: float = SILENCE_SECONDS
) -> None:
    """Speak as the program; raises OSError or Wrong."""
    connection.settimeout(silence)
    data = payload(seed, up)
    failures: list[OSError] = []

    def send() -> None:
        try:
            connection.sendall(HEAD.pack(number, seed, up, down, half_close, hashlib.sha256(data).digest()) + data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            failures.append(error)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    try:
        digest = exactly(connection, 32)
        checked(exactly(connection, down), digest)
        until_end(connection)
    except Wrong:
        sending.join(silence)
        if failures:  # a reset is told once, to whichever call comes first: the other sees an end
            raise failures[0] from None
        raise
    sending.join(silence)
    if failures:
        raise failures[0]
    if not half_close:
        connection.shutdown(socket.SHUT_WR)


def as_service(connection: socket.socket, learnt: list[int]) -> None:
    """Speak as the service; raises OSError or Wrong. `learnt`: gets the flow's number."""
    connection.settimeout(SILENCE_SECONDS)
    number, seed, up, down, half_close, digest = HEAD.unpack(exactly(connection, HEAD.size))
    learnt.append(number)
    checked(exactly(connection, up), digest)
    if half_close:
        until_end(connection)
    data = payload(seed + 1, down)
    connection.sendall(hashlib.sha256(data).digest() + data)
    connection.shutdown(socket.SHUT_WR)
    if not half_close:
        until_end(connection)


def outcome(error: BaseException | None) -> Outcome:
    """Return what an end's error, or none, stands for."""
    if error is None:
        return Outcome("whole")
    if isinstance(error, TimeoutError):
        return Outcome("hanging")
    if isinstance(error, Wrong):
        return Outcome(str(error))
    return Outcome("error", type(error).__name__)
