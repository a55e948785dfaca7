"""A worker process of a relay: it splices pairs that were joined, and knows nothing of them but two sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from functools import partial

from klinket.net import collector
from klinket.net.splice import KernelPipes, Pair
from klinket.net.workers import WorkerEnd, begin_worker

#: Message to a worker: a pair (which of the two has ended, with their sockets). Of a worker: a pair has ended, or has moved
#: bytes; both with what it has received from each of the two.
SPLICE, ENDED, MOVED = 1, 2, 3
_RECEIVED = struct.Struct(">QQ")
#: Seconds between words on pairs that have moved bytes, for who looks at the relay's metrics.
TELL_SECONDS = 5.0
#: Seconds between looks for pairs that move nothing.
LOOK_SECONDS = 60.0


def decode_received(content: bytes) -> tuple[int, int] | None:
    """Return what a worker says a pair has received from each of the two; None where it says nothing."""
    if len(content) != _RECEIVED.size:
        return None
    one, two = _RECEIVED.unpack(content)
    return one, two


class PairWorker:
    """All pairs of this process. `idle_seconds`: without a byte, after which a pair is closed."""

    def __init__(self, sock: socket.socket, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._pipes = KernelPipes()
        self._pairs: dict[int, Pair] = {}
        self._end = WorkerEnd(sock, self._taken)
        self._told_at = asyncio.get_running_loop().time()
        self._look()
        self._tell()

    def _taken(self, kind: int, number: int, content: bytes, files: list[int]) -> None:
        if kind != SPLICE or len(files) != 2 or len(content) != 1:
            raise ValueError("an unknown message to a worker")
        one, two = (socket.socket(fileno=file) for file in files)
        ended = bool(content[0] & 1), bool(content[0] & 2)
        pair = self._pairs[number] = Pair(one, two, self._pipes, partial(self._ended, number), ended)
        pair.reset_at_close(reset=True)
        pair.start()

    def _ended(self, number: int, pair: Pair) -> None:
        del self._pairs[number]
        self._end.tell(ENDED, number, _RECEIVED.pack(*pair.received()))

    def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        since, self._told_at = self._told_at, loop.time()
        for number, pair in self._pairs.items():
            if pair.moved_at >= since:
                self._end.tell(MOVED, number, _RECEIVED.pack(*pair.received()))
        loop.call_later(TELL_SECONDS, self._tell)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for pair in [pair for pair in self._pairs.values() if pair.moved_at < loop.time() - self._idle_seconds]:
            pair.reset()
        loop.call_later(LOOK_SECONDS, self._look)


async def _work(file: int, idle_seconds: float) -> None:
    worker = PairWorker(begin_worker(file), idle_seconds)
    await asyncio.get_running_loop().create_future()  # the end of the channel ends this process
    del worker


if __name__ == "__main__":
    import uvloop

    collector.settle()
    uvloop.run(_work(int(sys.argv[1]), float(sys.argv[2])))
