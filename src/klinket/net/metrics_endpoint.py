"""A small HTTP server for who watches a part: `/metrics`, `/live` and `/ready`. Off unless an address is given."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from klinket.domain.errors import InvalidInput
from klinket.domain.readiness import Readiness
from klinket.net.exposition import Exposition
from klinket.net.sockets import HostPort

logger = logging.getLogger(__name__)

#: Connections at a time that have not asked yet, of which the oldest gives way, and as many that are answered.
MAX_CONNECTIONS = 16
#: Bytes of a request, headers included, and seconds for it and its answer.
MAX_REQUEST_BYTES = 8_192
REQUEST_SECONDS = 5.0


class MetricsEndpoint:
    """`ready` says what a part is waiting for; it may take its time, `/live` does not ask it.

    `measured`: says the same, after it has looked for what `/metrics` tells beyond that.
    """

    def __init__(
        self,
        exposition: Exposition,
        ready: Callable[[], Awaitable[Readiness]],
        measured: Callable[[], Awaitable[Readiness]] | None = None,
    ) -> None:
        self._measured = ready if measured is None else measured
        self._exposition = exposition
        self._ready = ready
        #: Those that have not asked yet, the oldest first.
        self._silent: dict[asyncio.Task[None], None] = {}
        self._answering = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._silent) >= MAX_CONNECTIONS:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.cancel()
        self._silent[task] = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                self._silent.pop(task, None)
                if self._answering < MAX_CONNECTIONS:
                    await self._tell(writer, head)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):  # TimeoutError is an OSError
            pass  # whoever asks so learns nothing
        except asyncio.CancelledError:
            writer.transport.abort()  # it gave way, or the part ends
        except Exception:
            logger.exception("metrics could not be told")
        finally:
            self._silent.pop(task, None)
            writer.close()

    async def _tell(self, writer: asyncio.StreamWriter, head: bytes) -> None:
        self._answering += 1
        try:
            writer.write(await self._answer(head.split(b"\r\n", 1)[0]))
            await writer.drain()
        finally:
            self._answering -= 1

    async def _answer(self, line: bytes) -> bytes:
        words = line.split(b" ")
        if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "text/plain", b"GET only\n", b"GET")
        path = words[1].split(b"?", 1)[0]
        if path == b"/live":
            return _response("200 OK", "application/json", b'{"status": "live"}\n', words[0])
        if path == b"/ready":
            ready = await self._ready()
            status = "200 OK" if ready.is_ready else "503 Service Unavailable"
            return _response(status, "application/json", json.dumps(ready.document()).encode() + b"\n", words[0])
        if path == b"/metrics":
            type, text = self._exposition.text(await self._measured())
            return _response("200 OK", type, text, words[0])
        return _response("404 Not Found", "text/plain", b"/metrics, /live, /ready\n", words[0])


def _response(status: str, type: str, body: bytes, method: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {type}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if method == b"HEAD" else body)


@asynccontextmanager
async def served(
    address: HostPort | None,
    exposition: Callable[[], Exposition],
    ready: Callable[[], Awaitable[Readiness]],
    measured: Callable[[], Awaitable[Readiness]] | None = None,
) -> AsyncIterator[HostPort | None]:
    """Serve at `address` while the block runs, or nothing when it is None. Raises InvalidInput("metrics").

    Yields where it listens. Nobody proves anything here: an address beyond loopback is for a network that may read it.
    """
    if address is None:
        yield None
        return
    endpoint = MetricsEndpoint(exposition(), ready, measured)
    try:
        server = await asyncio.start_server(endpoint.serve, address.host, address.port, limit=MAX_REQUEST_BYTES)
    except OSError as error:
        hint = "another program has it: choose another --metrics" if error.errno == errno.EADDRINUSE else None
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise InvalidInput("metrics", f"cannot listen on {address}: {text}", hint=hint) from error
    try:
        host, port = server.sockets[0].getsockname()[:2]
        where = HostPort(str(host), int(port))
        logger.info("metrics are served at http://%s/metrics", where)
        yield where
    finally:
        server.close()
