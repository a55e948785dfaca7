"""Keeps idle connections waiting at each relay, as many as clients take up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from klinket.connector.limits import MAX_IDLE, MIN_IDLE
from klinket.connector.links import LinkServer
from klinket.net import pipe as pipes
from klinket.net.backoff import Backoff
from klinket.net.clock import entropy
from klinket.net.relay_path import IdleConnection, RelayPath, RelayUnavailable
from klinket.net.tasks import TaskSet
from klinket.wire.inventory import RelayEntry
from klinket.wire.relay import RelayAnswer, RelayError, RelayRole

logger = logging.getLogger(__name__)

#: A connection that ended sooner is replaced only after this time.
SHORTEST_WAIT_SECONDS = 1.0
#: Seconds before a relay that is stopping is asked again: another one may run there by then.
STOPPING_SECONDS = 3.0
#: Connections made to a relay at a time.
AT_ONCE = 16
#: Seconds after which the number of idle connections shrinks again.
SHRINK_SECONDS = 30.0


class RelayPresence:
    """This connector at one relay. `clock`: the controller's time."""

    def __init__(
        self,
        connector: int,
        relay: RelayEntry,
        ticket: str,
        links: LinkServer,
        clock: Callable[[], float],
        used_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.relay = relay
        self.ticket = ticket
        self._connector = connector
        self._links = links
        self._path = RelayPath(relay, RelayRole.CONNECTOR, lambda: self.ticket, clock, used_up)
        self._tasks = TaskSet(f"relay {relay.id}")
        #: Connections that wait for a client, by who waits with them.
        self._idle: dict[asyncio.Task[None], IdleConnection] = {}
        self._wanted = MIN_IDLE
        self._taken = 0
        self._backoff = Backoff()
        self._wake = asyncio.Event()
        self._away_until = 0.0
        self.attached = False

    def start(self) -> None:
        """Begin to keep connections waiting."""
        self._tasks.start(self._keep(), "keep idle connections")
        self._tasks.start(self._shrink(), "shrink")

    async def aclose(self) -> None:
        """End waiting connections and those of clients."""
        await self._tasks.aclose()

    def follow(self, relay: RelayEntry) -> None:
        """Take over another certificate of the same relay; connections there go on."""
        self.relay = relay
        self._path.follow(relay)

    @property
    def serving(self) -> bool:
        """Return whether clients are joined here."""
        return len(self._tasks) > len(self._idle) + 2

    def stop_waiting(self) -> None:
        """End waiting connections only."""
        self._wanted = 0
        for task in list(self._idle):
            task.cancel()

    async def _keep(self) -> None:
        while True:
            missing = min(self._wanted - len(self._idle), AT_ONCE if self.attached else 1)
            if missing > 0:
                delay = 0.0
                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(missing):
                            group.create_task(self._add())
                except* Exception as errors:
                    self.attached = False
                    delay = self._backoff.next()
                    logger.warning("relay %s: %s; trying again in %.1f s", self.relay.address, errors.exceptions[0], delay)
                if delay:  # outside of except*: a cancellation there would come out as a group of errors
                    await asyncio.sleep(delay)
                continue
            self._wake.clear()
            await self._wake.wait()

    async def _add(self) -> None:
        waiting, random = await self._register()
        if not self.attached:
            logger.info("waiting at relay %s", self.relay.address)
        self.attached = True
        self._backoff.reset()
        task = self._tasks.start(self._serve(waiting, random), "wait for a client")
        self._idle[task] = waiting
        task.add_done_callback(self._over)

    async def _register(self) -> tuple[IdleConnection, bytes]:
        """Return a connection that waits at the relay, greeted, and the random of the greeting."""
        while (left := self._away_until - time.monotonic()) > 0:
            self.attached = False
            await asyncio.sleep(left)
        waiting = await self._path.register(self._connector)
        try:
            return waiting, await pipes.greet(waiting.sock, entropy)
        except BaseException:
            waiting.sock.close()
            raise

    def _over(self, task: asyncio.Task[None]) -> None:
        """A task waits no more. It may have been cancelled before its first step: nothing of it stays behind."""
        waiting = self._idle.pop(task, None)
        if waiting is not None:
            waiting.sock.close()
            self._wake.set()

    async def _serve(self, waiting: IdleConnection, random: bytes) -> None:
        """Wait for a client, then serve it."""
        if await self._joined(waiting):
            serving = self._links.serve(waiting.sock, random, self.relay.id, leg=waiting.leg)
            del waiting, random  # a pipe may be there for hours: it keeps nothing of how it began
            await serving

    async def _joined(self, waiting: IdleConnection) -> bool:
        """Return whether a client was joined; the connection waits no more then."""
        task = asyncio.current_task()
        assert task is not None
        began = time.monotonic()
        try:
            await waiting.paired()
        except Exception as error:
            logger.info("relay %s: a waiting connection ended: %s", self.relay.address, error)
            if isinstance(error, RelayError) and not isinstance(error, RelayUnavailable) and error.answer is RelayAnswer.DRAINING:
                self._away_until, self.attached = time.monotonic() + STOPPING_SECONDS, False
            # Not the backoff: all that wait end together when a relay does, and would drive it to its maximum at once.
            await asyncio.sleep(max(0.0, SHORTEST_WAIT_SECONDS - (time.monotonic() - began)))
            return False
        self._idle.pop(task, None)
        task.remove_done_callback(self._over)
        self._wake.set()
        self._taken += 1
        if self._taken >= self._wanted // 2 and self._wanted:
            self._wanted = min(MAX_IDLE, self._wanted * 2)
            self._taken = 0
        return True

    async def _shrink(self) -> None:
        while True:
            await asyncio.sleep(SHRINK_SECONDS)
            if self._taken < self._wanted // 8 and self._wanted > MIN_IDLE:
                self._wanted //= 2
            self._taken = 0
