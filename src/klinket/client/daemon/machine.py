"""Starting the machine's capture, trying again where it is impossible, and letting it follow what is granted."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from klinket.client.capture.machine import CaptureState, MachineCapture
from klinket.client.daemon.pid_file import AlreadyRunning
from klinket.domain.errors import CaptureImpossible, KlinketError
from klinket.domain.resource import Resource

logger = logging.getLogger(__name__)

#: Seconds between tries where capture is impossible.
RETRY_SECONDS = 10.0
#: Network interfaces of other clients that take the same addresses and the system's resolvers for themselves.
OTHER_CLIENTS = {"sdwan0": "Twingate's client"}


class Machine:
    """`granted`: what is granted now, or None while there is no session."""

    def __init__(self, capture: MachineCapture, granted: Callable[[], Sequence[Resource] | None]) -> None:
        self._capture = capture
        self._granted = granted
        self._changed = asyncio.Event()
        self._followed = False
        self.failed: KlinketError | None = None

    def changed(self) -> None:
        """What is granted may be another now."""
        self._changed.set()

    @property
    def state(self) -> CaptureState | None:
        """Return what is in place, or None before what is granted is captured."""
        return self._capture.state() if self._followed else None

    async def run(self) -> None:
        """Claim the machine, and follow what is granted once there is a session, until cancelled.

        Without waiting for the session: rules that a crashed daemon left reject also the way to a controller in a granted range,
        and the claim takes them over.
        """
        while not await self._start():
            await asyncio.sleep(RETRY_SECONDS)
        while True:
            resources = self._granted()
            if resources is not None and not await self._follow(resources):
                await asyncio.sleep(RETRY_SECONDS)
                continue
            await self._changed.wait()
            self._changed.clear()

    async def _follow(self, resources: Sequence[Resource]) -> bool:
        try:
            await self._capture.follow(resources)
        except KlinketError as error:
            logger.error("rules do not follow what is granted: %s", error)
            self.failed = error
            return False
        self.failed, self._followed = None, True
        return True

    async def _start(self) -> bool:
        try:
            refuse_other_clients([name for _, name in socket.if_nameindex()])
            await self._capture.start()
        except (CaptureImpossible, AlreadyRunning) as error:
            if self.failed is None or self.failed.message != error.message:
                logger.error("%s: %s", error.code, error)
            self.failed = error
            return False
        self.failed = None
        return True

    async def aclose(self) -> None:
        """Undo everything."""
        await self._capture.aclose()


def refuse_other_clients(interfaces: Sequence[str]) -> None:
    """Raise AlreadyRunning where an interface is another client's: two of them would take traffic and DNS from each other."""
    for name, whose in OTHER_CLIENTS.items():
        if name in interfaces:
            raise AlreadyRunning(
                f"{whose} is running on this machine (interface {name})", hint="stop it first: one machine, one client"
            )
