"""The client's side of hole punching: asks for meetings with connectors and keeps the connections they bring.

Each pipe needs a connection of its own and a meeting takes a moment, so a stock of them is kept ahead. Pipes are used again
after flows that ended cleanly; where the stock is empty, a link goes on over the relays behind it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from klinket.net import punching
from klinket.net.direct_path import DirectUnavailable
from klinket.net.punching import LocalPorts
from klinket.net.tasks import TaskSet
from klinket.wire.control import Message, Punch, PunchInvitation, PunchRefused, PunchStart, PunchTold
from klinket.wire.pipe import VERSION

logger = logging.getLogger(__name__)

#: Seconds a connection of the stock is good for: less than the connector keeps it (connector.limits.PUNCHED_IDLE_SECONDS).
STOCK_SECONDS = 240.0
#: Connections in stock below which another meeting is asked for, and kept at the most of one connector.
LOW_STOCK, MAX_STOCK = 8, 32
#: Seconds for the controller's invitation, and then for the connector to be seen as well.
ANSWER_SECONDS = 10.0
#: Seconds after a meeting that failed until the next is asked for: the first time, and at the most.
AGAIN_SECONDS, MOST_AGAIN_SECONDS = 60.0, 3_600.0
#: Seconds between meetings with one connector that succeed: the controller refuses more (controller.punching).
BETWEEN_SECONDS = 20.0
#: Why both sides may have been seen, and no connection between what was seen comes about.
NAT_HINT = "a NAT on the way may map each destination to another port, or a firewall may refuse what comes from outside"
#: Set to turn it off, for every client command.
VARIABLE = "KLINKET_NO_HOLE_PUNCHING"

T = TypeVar("T", PunchInvitation, PunchStart)
Send = Callable[[Message], Awaitable[bool]]


class PunchedPath:
    """The connections with one connector that holes were punched for. `refill`: asks for more; raises KlinketError."""

    def __init__(
        self,
        refill: Callable[[PunchedPath], Awaitable[list[socket.socket]]],
        start: Callable[[PunchedPath], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refill = refill
        self._start = start
        self._monotonic = monotonic
        self._stock: deque[tuple[socket.socket, float]] = deque()
        self._failures = 0
        self._again_at = 0.0
        self.meeting = False

    def __len__(self) -> int:
        return len(self._stock)

    @property
    def worth_trying(self) -> bool:
        """Return whether no meeting is under way, nor failed just now."""
        return not self.meeting and self._monotonic() >= self._again_at

    @property
    def avoided(self) -> bool:
        """Return whether another path is to be tried first."""
        return False

    def avoid(self) -> None:
        """Note that another path has led there sooner: an empty stock says so itself."""

    async def connect(self, connector: int) -> socket.socket:
        """Return a connection of the stock; raises DirectUnavailable at once where there is none."""
        found: socket.socket | None = None
        while self._stock and found is None:
            sock, since = self._stock.pop()  # the newest: the oldest are given up first
            if self._monotonic() - since < STOCK_SECONDS and _is_open(sock):
                found = sock
            else:
                sock.close()
        if len(self._stock) < LOW_STOCK and self.worth_trying:
            self._start(self)
        if found is None:
            raise DirectUnavailable(f"no punched connection with connector {connector} is left")
        return found

    async def fill(self) -> None:
        """Meet the connector and put what it brings into the stock; raises KlinketError."""
        self.meeting = True
        try:
            for sock in await self._refill(self):
                if len(self._stock) >= MAX_STOCK:
                    self._stock.popleft()[0].close()
                self._stock.append((sock, self._monotonic()))
        except BaseException:
            self.failed()
            raise
        finally:
            self.meeting = False
        self._failures, self._again_at = 0, self._monotonic() + BETWEEN_SECONDS

    def failed(self) -> None:
        """Note that the connector was not met, or a link broke: relays are used for a while, each time for longer."""
        self._again_at = self._monotonic() + min(MOST_AGAIN_SECONDS, AGAIN_SECONDS * 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)
        self.drop()

    def drop(self) -> None:
        """Close what is in stock."""
        while self._stock:
            self._stock.pop()[0].close()


class Puncher:
    """Meetings with connectors. `url`: the controller's; `send`: says something to it, False where the channel is down."""

    def __init__(self, url: str, context: ssl.SSLContext, send: Send) -> None:
        self._netloc = urlsplit(url).netloc
        self._context = context
        self._send = send
        self._enabled = os.environ.get(VARIABLE, "").strip().lower() in ("", "0", "false", "no", "off")
        self._paths: dict[int, PunchedPath] = {}
        #: What the controller says of the meeting with a connector, in order.
        self._told: dict[int, asyncio.Queue[PunchTold]] = {}
        self._meetings: dict[str, int] = {}
        self._tasks = TaskSet("hole punching")

    def path(self, connector: int, punches: bool) -> PunchedPath | None:
        """Return the way to a connector through both sides' NATs; None where one of both does not take part."""
        if not (self._enabled and punches):
            return None
        if connector not in self._paths:
            self._paths[connector] = PunchedPath(lambda path: self._meet(connector), self._in_background)
        return self._paths[connector]

    def _in_background(self, path: PunchedPath) -> None:
        path.meeting = True  # before the task's first step: it is asked for once
        self._tasks.start(path.fill(), "meeting")

    def told(self, message: PunchTold) -> None:
        """Take what the controller says of a meeting; one nobody waits for is dropped."""
        if isinstance(message, PunchInvitation) and message.connector in self._told:
            self._meetings = {id: one for id, one in self._meetings.items() if one != message.connector}
            self._meetings[message.id] = message.connector
        connector = self._meetings.get(message.id) if isinstance(message, PunchStart) else message.connector
        if connector is not None and (waiting := self._told.get(connector)) is not None and not waiting.full():
            waiting.put_nowait(message)

    async def _meet(self, connector: int) -> list[socket.socket]:
        self._told[connector] = asyncio.Queue(4)
        ports: LocalPorts | None = None
        try:
            if not await self._send(Punch(connector=connector)):
                raise DirectUnavailable("the live channel is down")
            invitation = await self._next(connector, PunchInvitation)
            ports = await LocalPorts.reflected(self._netloc, invitation.token, self._context)
            start = await self._next(connector, PunchStart)
            peers = ports.dialled(start.peers)
            await asyncio.sleep(min(punching.MAX_START_SECONDS, max(0, start.in_ms) / 1000))
            made = await ports.connect(peers, _has_greeted)
            if not made:
                raise DirectUnavailable(f"connector {connector} was there, and no hole to it opens: {NAT_HINT}")
            logger.info("connector %d is met through the NATs: %d connections", connector, len(made))
            return made
        finally:
            if ports is not None:
                ports.close()
            del self._told[connector]
            self._meetings = {id: one for id, one in self._meetings.items() if one != connector}

    async def _next(self, connector: int, wanted: type[T]) -> T:
        """Return what the controller says next; raises DirectUnavailable."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                message = await self._told[connector].get()
        except TimeoutError as error:
            late = f"connector {connector} did not come to the meeting"
            if wanted is PunchInvitation:
                late = "the controller has not answered the question for a meeting"
            raise DirectUnavailable(f"{late} in {ANSWER_SECONDS:.0f} s") from error
        if isinstance(message, wanted):
            return message
        said = message.message if isinstance(message, PunchRefused) else "something unexpected"
        raise DirectUnavailable(f"no meeting with connector {connector}: {said[:200]}")

    def forget(self) -> None:
        """Forget what is in stock: a copied or forked process has nothing of it."""
        for path in self._paths.values():
            path.drop()
        self._paths.clear()

    async def aclose(self) -> None:
        """Give up what is under way, and the stock."""
        await self._tasks.aclose()
        self.forget()


def _has_greeted(sock: socket.socket) -> bool:
    """Return whether what has come begins as a greeting; it stays to be read."""
    try:
        return sock.recv(1, socket.MSG_PEEK) == bytes((VERSION,))
    except OSError:
        return False


def _is_open(sock: socket.socket) -> bool:
    """Return whether the other end has not closed: the greeting is waiting to be read, so reading tells nothing."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return not poll.poll(0)
