"""Pipes of one link that wait for their next flow: as many as are used, made ahead of need, and used again and again."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable

from klinket.domain.errors import KlinketError
from klinket.net.pipe import SealedPipe
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Pipes kept at the most, and seconds after which an unused one is closed: sooner than the connector closes it.
MAX_WARM = 256
WARM_SECONDS = 60.0
#: Pipes made ahead of need at the most.
MAX_AHEAD = 32
#: Seconds between looks for pipes that nobody has needed.
TRIM_SECONDS = 15.0
_CLOSED = "the link is closed"


class WarmPipes:
    """`make`: makes a pipe, raises KlinketError."""

    def __init__(self, make: Callable[[], Awaitable[SealedPipe]], tasks: TaskSet) -> None:
        self._make = make
        self._tasks = tasks
        self._kept: deque[tuple[SealedPipe, float]] = deque()
        #: Flows that wait for a pipe, the first in front; there are never fewer pipes in the making.
        self._waiting: deque[asyncio.Future[SealedPipe]] = deque()
        self._making = 0
        self._ahead = 0
        self._fewest = 0
        self._trimming: asyncio.TimerHandle | None = None
        self._open = True

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> SealedPipe | None:
        """Return a pipe that waits, or None."""
        while self._kept:
            pipe, since = self._kept.pop()  # last in, first out: its buffers and window are warm
            self._fewest = min(self._fewest, len(self._kept))
            if not pipe.closed and time.monotonic() - since < WARM_SECONDS and _silent(pipe.sock):
                if len(self._kept) + self._making < self._ahead:
                    self._make_one()
                return pipe
            pipe.abort()
        return None

    async def next(self) -> SealedPipe:
        """Return a pipe that waits, else the first that is made or given back.

        Raises what making one raised, ConnectionResetError once this is closed, also to those who wait then.
        """
        if not self._open:
            raise ConnectionResetError(_CLOSED)
        pipe = self.take()
        if pipe is not None:
            return pipe
        self._ahead = min(MAX_AHEAD, max(1, self._ahead * 2))
        turn: asyncio.Future[SealedPipe] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        ahead = min(self._ahead, max(0, MAX_AHEAD - len(self._waiting)))
        while self._making < len(self._waiting) + ahead:
            self._make_one()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(turn.result())
            raise

    def give_back(self, pipe: SealedPipe) -> None:
        """Keep a pipe whose flow has ended cleanly, or that is new."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(pipe)
                return
        if not self._open or len(self._kept) >= MAX_WARM or pipe.closed:
            pipe.close()
            return
        self._kept.append((pipe, time.monotonic()))
        if self._trimming is None:
            self._fewest = len(self._kept)
            self._trimming = asyncio.get_running_loop().call_later(TRIM_SECONDS, self._trim)

    def _make_one(self) -> None:
        self._making += 1
        self._tasks.start(self._make_and_give(), "pipe")

    async def _make_and_give(self) -> None:
        try:
            pipe = await self._make()
        except BaseException as error:
            self._ahead = 0
            while self._waiting:
                turn = self._waiting.popleft()
                if not turn.done():
                    turn.set_exception(error if isinstance(error, KlinketError) else ConnectionResetError(_CLOSED))
                    break
            if not isinstance(error, KlinketError):
                raise
            logger.debug("no pipe: %s", error.message)
            return
        finally:
            self._making -= 1
        self.give_back(pipe)

    def _trim(self) -> None:
        """Close what waits for long, and half of what nobody has needed since the last look: the oldest."""
        self._trimming = None
        before = time.monotonic() - WARM_SECONDS
        unneeded = (self._fewest + 1) // 2 if self._fewest > self._ahead else 0
        kept = list(self._kept)
        self._kept.clear()
        for number, (pipe, since) in enumerate(kept):
            if number < unneeded or since < before or pipe.closed or not _silent(pipe.sock):
                pipe.close()
            else:
                self._kept.append((pipe, since))
        if self._fewest >= self._ahead:
            self._ahead //= 2
        if self._kept:
            self._fewest = len(self._kept)
            self._trimming = asyncio.get_running_loop().call_later(TRIM_SECONDS, self._trim)

    def close(self) -> None:
        """Close the pipes that wait, and keep none any more. Who waits for one is told: nobody else may tell of its making."""
        self._open = False
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(ConnectionResetError(_CLOSED))
        self._waiting.clear()
        if self._trimming is not None:
            self._trimming.cancel()
            self._trimming = None
        while self._kept:
            self._kept.pop()[0].close()


def _silent(sock: socket.socket) -> bool:
    """Return whether an unused pipe is still open: nothing may have come on it."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    return False
