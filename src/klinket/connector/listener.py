"""The connector's own listener, where it is told to have one: clients that can reach it need no relay.

What follows on a connection is as behind a relay: a greeting, then a link's handshake or a pipe (docs/reference/wire.md).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Collection

from klinket.connector.limits import (
    DIRECT_BURST,
    DIRECT_PER_SECOND,
    MAX_DIRECT_ADDRESSES,
    MAX_DIRECT_UNPROVEN,
    MAX_DIRECT_UNPROVEN_PER_SOURCE,
)
from klinket.connector.links import DIRECT, LinkServer
from klinket.domain.errors import InvalidInput
from klinket.domain.newcomers import Newcomers
from klinket.domain.token_buckets import TokenBuckets
from klinket.net import pipe as pipes
from klinket.net import sockets
from klinket.net.clock import entropy
from klinket.net.sockets import HostPort
from klinket.net.sources import source_of
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Connections accepted in one go, and seconds without accepting when there are no descriptors.
ACCEPT_ROUNDS = 64
NO_DESCRIPTOR_SECONDS = 0.5


class DirectListener:
    """Accepts clients' connections at `address`; raises InvalidInput("listen") when it cannot be had."""

    def __init__(self, address: HostPort, advertised: Collection[HostPort], links: LinkServer) -> None:
        self._links = links
        self._advertised = advertised
        self._tasks = TaskSet("direct connections")
        #: Connections without a proof.
        self._unproven: Newcomers[asyncio.Task[None]] = Newcomers()
        self._rates = TokenBuckets(DIRECT_BURST, DIRECT_PER_SECOND)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._listener = socket.create_server((address.host, address.port), family=family, backlog=4096)
        except OSError as error:
            hint = "another program has it: choose another --listen" if error.errno == errno.EADDRINUSE else None
            text = os.strerror(error.errno) if error.errno else str(error)
            raise InvalidInput("listen", f"cannot listen on {address}: {text}", hint=hint) from error
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()[:2]

    def start(self) -> None:
        """Begin to accept."""
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def addresses(self, own: Collection[str]) -> list[str]:
        """Return under which addresses clients find it. `own`: this machine's, for a listener on all of them."""
        if self._advertised:
            return [str(address) for address in self._advertised]
        hosts = sorted(own) if self.host in ("0.0.0.0", "::") else [str(self.host)]  # noqa: S104 - a comparison
        families = [host for host in hosts if self.host != "0.0.0.0" or ":" not in host]  # noqa: S104
        return [str(HostPort(host, self.port)) for host in families][:MAX_DIRECT_ADDRESSES]

    def stop_accepting(self) -> None:
        """Take no further connections; those there are go on."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()

    async def aclose(self) -> None:
        """Stop, and end the connections of clients."""
        if self._listener.fileno() >= 0:
            self.stop_accepting()
        await self._tasks.aclose()

    def _accept(self) -> None:
        for _ in range(ACCEPT_ROUNDS):
            try:
                sock, where = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("cannot accept connections: %s; raise the limit of open files", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(NO_DESCRIPTOR_SECONDS, self._accept_again)
                return
            source = source_of(str(where[0]))
            if self._rates.take(source, time.monotonic()):
                sockets.reset(sock)
                continue
            gives_way = self._unproven.make_room(source, MAX_DIRECT_UNPROVEN, MAX_DIRECT_UNPROVEN_PER_SOURCE)
            if gives_way is not None:
                gives_way[1].cancel()
            self._unproven.add(source, self._tasks.start(self._serve(sockets.prepare(sock), source), "client"))

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            self.start()

    async def _serve(self, sock: socket.socket, source: str) -> None:
        serving = asyncio.current_task()
        assert serving is not None

        def proved() -> None:
            self._unproven.remove(source, serving)

        try:
            random = await pipes.greet(sock, entropy)
            await self._links.serve(sock, random, DIRECT, proved)
        except OSError as error:
            logger.debug("a direct connection ended: %s", error)
        finally:
            proved()
            sock.close()
