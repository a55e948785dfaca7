"""How a client's sealed datagrams may go: to the connector itself, or over a relay's UDP port with a pipe of their own there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from klinket.domain.errors import KlinketError, ProtocolError
from klinket.net import pipe as pipes
from klinket.net.clock import entropy
from klinket.net.pipe import SealedPipe
from klinket.net.relay_path import Leg, RelayPath
from klinket.net.tasks import TaskSet
from klinket.wire import link_control
from klinket.wire.link import Link
from klinket.wire.link_control import DatagramsOpened, LinkMessage, NoDatagrams, OpenDatagrams
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.relay import RelayError

logger = logging.getLogger(__name__)

Answered = Callable[["DatagramWay", DatagramsOpened | NoDatagrams], None]
Ended = Callable[["DatagramWay", str], None]
#: Seconds for the connector's answer, on any way: at a relay it binds itself first.
ANSWER_SECONDS = 10.0


class DatagramWay:
    """The way to the connector itself. `tell`: sends a message on the link's control pipe, or returns False.

    `where`: family and address datagrams go to; None where there is no such way now. `again_at`: monotonic seconds before which
    it is not tried; `failures`: in a row.
    """

    def __init__(self, tell: Callable[[LinkMessage], bool], where: Callable[[], tuple[int, Any] | None]) -> None:
        self.tell = tell
        self.where = where
        self._asked_at = float("inf")
        self.again_at = 0.0
        self.failures = 0
        #: The end's connection at the relay; None: no relay is between.
        self.leg: Leg | None = None

    @property
    def there(self) -> bool:
        """Return whether it can be tried."""
        return self.where() is not None

    def ask(self, message: OpenDatagrams) -> bool:
        """Ask the connector for a path; False where something else is being sent there."""
        self._asked_at = time.monotonic()
        return self.tell(message)

    @property
    def overdue(self) -> bool:
        """Return whether the connector has had the time for its answer."""
        return time.monotonic() - self._asked_at > ANSWER_SECONDS

    def attend(self, answered: Answered, ended: Ended) -> None:
        """Have the connector's answer, and the end of what the path depends on, told; where it is told elsewhere, not here."""

    def close(self) -> None:
        """Free what it holds besides the path itself."""


class RelayedWay(DatagramWay):
    """`usable`: whether there may be such a relay, and the connector takes such pipes; `connect`: makes one through it.

    The path ends with that pipe at both ends.
    """

    def __init__(self, usable: Callable[[], bool], connect: Callable[[], Awaitable[tuple[SealedPipe, Leg]]]) -> None:
        super().__init__(lambda message: True, self._where)
        self._usable = usable
        self._connect = connect
        self._answered: Answered = lambda way, message: None
        self._ended: Ended = lambda way, reason: None
        self._pipe: SealedPipe | None = None
        self._tasks = TaskSet("datagrams over a relay")
        self._task: asyncio.Task[None] | None = None
        self._attempt = 0

    def attend(self, answered: Answered, ended: Ended) -> None:
        """Have the connector's answer, and the end of the pipe, told."""
        self._answered, self._ended = answered, ended

    @property
    def there(self) -> bool:
        """Return whether it can be tried."""
        return self._usable()

    def _where(self) -> tuple[int, Any] | None:
        return None if self.leg is None else self.leg.where

    def ask(self, message: OpenDatagrams) -> bool:
        """Ask for a path on a pipe of its own; what is told later than that, the end of the pipe says."""
        self.close()
        self._asked_at = float("inf")
        self._task = self._tasks.start(self._serve(message, self._attempt), "pipe")
        return True

    async def _serve(self, message: OpenDatagrams, attempt: int) -> None:
        pipe: SealedPipe | None = None
        try:
            pipe, leg = await self._connect()
            if attempt != self._attempt:
                return
            self._pipe, self.leg, self._asked_at = pipe, leg, time.monotonic()
            await pipe.send(FrameType.CONTROL, link_control.encode(message))
            while True:
                frame = await pipe.receive()
                answer = link_control.decode_from_connector(frame.content) if frame.type is FrameType.CONTROL else None
                if not isinstance(answer, DatagramsOpened | NoDatagrams):
                    raise ProtocolError("a pipe for datagrams carries only what concerns their path")
                if attempt == self._attempt:
                    self._answered(self, answer)
        except (OSError, KlinketError) as error:
            if attempt == self._attempt:
                self.close()
                self._ended(self, str(error))
        finally:
            if pipe is not None:
                pipe.abort()

    def close(self) -> None:
        """End the pipe, and with it the path."""
        self._attempt += 1
        self.leg = None
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.abort()


async def relayed_pipe(relays: Sequence[RelayPath], connector: int, link: Link, seconds: float) -> tuple[SealedPipe, Leg]:
    """Return a pipe for datagrams through the first relay that forwards them; raises OSError, KlinketError. `seconds`: for it."""
    for path in relays:
        try:
            if not await path.forwards_datagrams():
                continue
            sock, leg = await path.connect_with_leg(connector)
        except RelayError as error:
            logger.debug("datagrams: %s", error)
            continue
        try:
            if leg.where is not None:
                async with asyncio.timeout(seconds):
                    return await pipes.open_pipe(sock, link, Purpose.DATAGRAMS, entropy), leg
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise ConnectionError("no relay forwards datagrams")
