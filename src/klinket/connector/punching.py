"""The connector's side of hole punching: lets in the clients the controller has arranged a meeting with.

What follows on a connection is as at a relay: a greeting, then a link's handshake or a pipe. Nothing is believed for the
address a connection comes from.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from functools import partial
from urllib.parse import urlsplit

from klinket.connector.limits import MAX_PUNCHED_PER_SOURCE, MAX_PUNCHED_WAITING, MAX_PUNCHES, PUNCHED_IDLE_SECONDS
from klinket.connector.links import DIRECT, LinkServer
from klinket.domain.errors import KlinketError
from klinket.domain.newcomers import Newcomers
from klinket.net import pipe as pipes
from klinket.net import punching, sockets
from klinket.net.clock import entropy
from klinket.net.punching import LocalPorts
from klinket.net.sources import source_of
from klinket.net.tasks import TaskSet
from klinket.wire.control import PunchInvitation, PunchStart

logger = logging.getLogger(__name__)

#: Seconds from the invitation until the controller says where the client is.
START_SECONDS = 10.0


class ConnectorPunching:
    """`url`: the controller's."""

    def __init__(self, url: str, context: ssl.SSLContext, links: LinkServer) -> None:
        self._netloc = urlsplit(url).netloc
        self._context = context
        self._links = links
        self._tasks = TaskSet("hole punching")
        self._meetings: dict[str, asyncio.Future[PunchStart]] = {}
        #: Connections that wait for a client's first bytes.
        self._waiting: Newcomers[asyncio.Task[None]] = Newcomers()

    def told(self, message: PunchInvitation | PunchStart) -> None:
        """Take what the controller says of a meeting."""
        if isinstance(message, PunchStart):
            awaited = self._meetings.get(message.id)
            if awaited is not None and not awaited.done():
                awaited.set_result(message)
        elif message.id not in self._meetings and len(self._meetings) < MAX_PUNCHES:
            begin = self._meetings[message.id] = asyncio.get_running_loop().create_future()
            meeting = self._tasks.start(self._meet(message, begin), "meeting")
            meeting.add_done_callback(lambda _: self._meetings.pop(message.id, None))

    async def _meet(self, invitation: PunchInvitation, begin: asyncio.Future[PunchStart]) -> None:
        ports: LocalPorts | None = None
        try:
            ports = await LocalPorts.reflected(self._netloc, invitation.token, self._context)
            async with asyncio.timeout(START_SECONDS):
                start = await begin
            peers = ports.dialled(start.peers)
            await asyncio.sleep(min(punching.MAX_START_SECONDS, max(0, start.in_ms) / 1000))
            await ports.accept(peers, self._came)
        except (KlinketError, OSError) as error:  # TimeoutError is one
            logger.info("no meeting with a client: %s", error)
        finally:
            if ports is not None:
                ports.close()

    def _came(self, sock: socket.socket) -> None:
        try:
            source = source_of(str(sock.getpeername()[0]))
        except OSError:
            sock.close()
            return
        gives_way = self._waiting.make_room(source, MAX_PUNCHED_WAITING, MAX_PUNCHED_PER_SOURCE)
        if gives_way is not None:
            gives_way[1].cancel()
        serving = self._tasks.start(self._serve(sock, source), "client")
        self._waiting.add(source, serving)
        serving.add_done_callback(partial(self._over, sock, source))

    def _over(self, sock: socket.socket, source: str, serving: asyncio.Task[None]) -> None:
        """A task has ended, perhaps cancelled before its first step: nothing of it stays behind."""
        self._waiting.remove(source, serving)
        sock.close()

    async def _serve(self, sock: socket.socket, source: str) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        try:
            random = await pipes.greet(sock, entropy)
            # A client keeps some ahead: a hole cannot be punched at the moment a flow wants one.
            async with asyncio.timeout(PUNCHED_IDLE_SECONDS):
                await punching.ready(sock, reading=True)
            await self._links.serve(sock, random, DIRECT, lambda: self._waiting.remove(source, serving))
        except OSError as error:  # TimeoutError is one
            logger.debug("a punched connection ended: %s", error)
            sockets.reset(sock)

    def end_waiting(self) -> None:
        """End what waits for a client's first bytes, and forget the meetings that have not begun; flows go on."""
        self._meetings.clear()
        for _, serving in self._waiting.all():
            serving.cancel()

    async def aclose(self) -> None:
        """End everything, connections of clients included."""
        await self._tasks.aclose()
