"""The daemon's control socket: a Unix socket, one request and one answer a connection, everything bounded.

Whoever connects is known by the kernel's word (SO_PEERCRED), not by anything sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from klinket.client.daemon import protocol
from klinket.client.daemon.protocol import Answer, Request
from klinket.domain.errors import KlinketError
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Connections of users at a time, and of one user among them; root's are not counted: no user keeps root out.
MAX_CONNECTIONS = 128
MAX_CONNECTIONS_PER_USER = 16
#: Seconds to send a request, and to take the answer.
REQUEST_SECONDS = 5.0
_CREDENTIALS = "iII"

Handler = Callable[[Request, int], Awaitable[Answer]]


class ControlServer:
    """Listens from `listen` to `aclose`. `handle` gets an allowed request and its user's id; may raise KlinketError."""

    def __init__(self, handle: Handler) -> None:
        self._handle = handle
        self._users: Counter[int] = Counter()
        self._tasks = TaskSet("control socket")
        self._listener: socket.socket | None = None
        self._path: Path | None = None

    def listen(self, path: Path) -> None:
        """Begin to accept; the caller holds the lock that says no other daemon uses this path. Raises OSError."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.bind(str(path))
            path.chmod(0o666)  # every user may ask; what each may do is decided by who it is
            listener.listen(64)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        self._listener, self._path = listener, path
        self._tasks.start(self._accept(listener), "accept")

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                logger.error("control socket: %s", error)
                await asyncio.sleep(0.1)
                continue
            connection.setblocking(False)
            user = peer_user(connection)
            others = self._users.total() - self._users[0]
            if user != 0 and (others >= MAX_CONNECTIONS or self._users[user] >= MAX_CONNECTIONS_PER_USER):
                connection.close()
                continue
            self._users[user] += 1
            self._tasks.start(self._serve(connection, user), "request")

    async def _serve(self, connection: socket.socket, user: int) -> None:
        try:
            with connection:
                answer = await self._answer(connection, user)
                if answer is not None:
                    async with asyncio.timeout(REQUEST_SECONDS):
                        await asyncio.get_running_loop().sock_sendall(connection, protocol.encode(answer))
        except (OSError, TimeoutError) as error:
            logger.debug("a command went away: %s", error)
        finally:
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]

    async def _answer(self, connection: socket.socket, user: int) -> Answer | None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                line = await _line(connection)
            if not line:
                return None
            request = protocol.decode_request(line)
            if request.verb not in protocol.READ_VERBS and user not in (0, os.geteuid()):
                raise protocol.NeedsRoot(f"{request.verb} is for root only")
            return await self._while_there(connection, self._handle(request, user))
        except KlinketError as error:
            return protocol.refusal(error)
        except (OSError, TimeoutError):
            raise  # it is the command that is gone, or silent
        except Exception:
            logger.exception("a request failed")
            return protocol.refusal(KlinketError("the daemon failed at this request", hint="the daemon's log says where"))

    async def _while_there(self, connection: socket.socket, work: Awaitable[Answer]) -> Answer | None:
        """Answer a request until its command goes away: nobody would take the answer."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(connection, 1))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def aclose(self) -> None:
        """Stop listening; requests that are being answered end without an answer."""
        await self._tasks.aclose()
        if self._listener is not None and self._path is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)


def peer_user(connection: socket.socket) -> int:
    """Return the user id of who connected, as the kernel has it."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
    return int(struct.unpack(_CREDENTIALS, credentials)[1])


async def _line(connection: socket.socket) -> bytes:
    """Return what comes up to the first line feed, or up to one byte more than a request may have."""
    loop = asyncio.get_running_loop()
    received = b""
    while b"\n" not in received and len(received) <= protocol.MAX_REQUEST_BYTES:
        more = await loop.sock_recv(connection, protocol.MAX_REQUEST_BYTES + 1 - len(received))
        if not more:
            break
        received += more
    return received.partition(b"\n")[0]
