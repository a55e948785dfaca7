"""A worker process of a relay: it splices pairs that were joined, and knows nothing of them but two sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from functools import partial

from klinket.net.splice import KernelPipes, Pair
from klinket.net.workers import WorkerEnd, begin_worker

#: Message to a worker: a pair (which of the two has ended, with their sockets). Of a worker: a pair has ended.
SPLICE, ENDED = 1, 2
#: Seconds between looks for pairs that move nothing.
LOOK_SECONDS = 60.0


class PairWorker:
    """All pairs of this process. `idle_seconds`: without a byte, after which a pair is closed."""

    def __init__(self, sock: socket.socket, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._pipes = KernelPipes()
        self._pairs: dict[int, Pair] = {}
        self._end = WorkerEnd(sock, self._taken)
        self._look()

    def _taken(self, kind: int, number: int, content: bytes, files: list[int]) -> None:
        if kind != SPLICE or len(files) != 2 or len(content) != 1:
            raise ValueError("an unknown message to a worker")
        one, two = (socket.socket(fileno=file) for file in files)
        ended = bool(content[0] & 1), bool(content[0] & 2)
        pair = self._pairs[number] = Pair(one, two, self._pipes, partial(self._ended, number), ended)
        pair.reset_at_close(reset=True)
        pair.start()

    def _ended(self, number: int, _: Pair) -> None:
        del self._pairs[number]
        self._end.tell(ENDED, number)

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

    uvloop.run(_work(int(sys.argv[1]), float(sys.argv[2])))
