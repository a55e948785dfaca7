"""The controller's listener: uvicorn's protocols on connections that we accept ourselves, with seats and deadlines.

uvicorn has no deadline for the TLS handshake, a request's head or its body, and no limit by source address.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from klinket.controller.seats import PLACE, UNPROVEN_SECONDS, Place, Seat, Seats
from klinket.domain.errors import InvalidInput
from klinket.net import descriptors
from klinket.net.sockets import HostPort
from klinket.net.tasks import TaskSet
from klinket.wire.control import MAX_CONTROL_BYTES

logger = logging.getLogger(__name__)

#: Bytes of a WebSocket message before its peer has proved who it is.
MAX_UNPROVEN_MESSAGE_BYTES = 32_768
#: Bytes of a request beside its body: its line, headers and trailers. More ends the connection, where it was not read at once.
MAX_HEAD_BYTES = 65_536
#: Seconds a TLS handshake may take.
HANDSHAKE_SECONDS = 10.0
#: Connections accepted in one go, and seconds without accepting when there are no descriptors.
ACCEPT_ROUNDS = 64
NO_DESCRIPTOR_SECONDS = 0.5
#: Seconds between looks for connections that have proved nothing in time.
SWEEP_SECONDS = 1.0


class _Http(HttpToolsProtocol):
    """uvicorn's HTTP connection; its end gives the seat back, unless a WebSocket has taken it over.

    A proof counts until the answer to its request is sent: what comes next, or does not come, has a deadline again. The parser
    alone would collect a head, or trailers, without end.
    """

    #: Bytes of the request that is being read which are not of its body.
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        place: Place | None = self.app_state.get(PLACE)
        tls = transport.get_extra_info("ssl_object")
        if place is not None and tls is not None:
            place.seat.tls = tls.version() or ""

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._head_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        place: Place | None = self.app_state.get(PLACE)
        if place is not None:
            place.seats.answered(place.seat, time.monotonic())
        super().on_response_complete()  # which begins the next request where that is here already

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _leave(self.app_state)


class _WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket connection; large messages only after a proof."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        place: Place | None = self.app_state.get(PLACE)
        if place is not None and not place.seat.proven:
            self.conn.max_message_size = MAX_UNPROVEN_MESSAGE_BYTES
            place.seat.when_proven.append(self._let_large_ones_in)

    def _let_large_ones_in(self) -> None:
        self.conn.max_message_size = MAX_CONTROL_BYTES

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _leave(self.app_state)


def _leave(state: dict[str, Any]) -> None:
    place: Place | None = state.get(PLACE)
    if place is not None:
        place.seats.leave(place.seat)


def bind(address: HostPort) -> socket.socket:
    """Return a listening socket; raises InvalidInput("listen") when it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        listener = socket.create_server((address.host, address.port), family=family, backlog=4096)
    except OSError as error:
        raise InvalidInput(
            "listen",
            f"cannot listen on {address}: {os.strerror(error.errno) if error.errno else error}",
            hint="another program has it: end that one, or choose another --listen" if error.errno == errno.EADDRINUSE else None,
        ) from error
    listener.setblocking(False)
    return listener


@dataclass(frozen=True)
class WebServer:
    """What is served now. `running` ends by itself only when something is wrong."""

    seats: Seats
    running: asyncio.Task[None]


@asynccontextmanager
async def serving(app: Starlette, listener: socket.socket, context: ssl.SSLContext) -> AsyncIterator[WebServer]:
    """Serve `app` on a listening socket while the body runs; closes the socket (dependencies.md 2.2 for the settings)."""
    settings = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Http,
        ws=_WebSocket,
        ws_per_message_deflate=False,
        ws_max_size=MAX_CONTROL_BYTES,
        ws_ping_interval=20,
        ws_ping_timeout=20,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        lifespan="off",
    )
    settings.load()
    server = uvicorn.Server(settings)
    seats = Seats(descriptors.raise_limit())
    # Without sockets of its own it keeps the date header and the connections' orderly end.
    running = asyncio.create_task(server._serve(sockets=[]))
    door = _Door(settings, server, listener, context, seats)
    try:
        while not server.started:
            if running.done():
                running.result()
                raise OSError("the web server has ended")
            await asyncio.sleep(0.01)
        door.open()
        yield WebServer(seats, running)
    finally:
        await door.aclose()
        server.should_exit = True
        await asyncio.gather(running, return_exceptions=True)


class _Door:
    """Accepts connections, and gives each a seat before the first byte of TLS."""

    def __init__(
        self, settings: uvicorn.Config, server: uvicorn.Server, listener: socket.socket, context: ssl.SSLContext, seats: Seats
    ) -> None:
        self._settings = settings
        self._server = server
        self._listener = listener
        self._context = context
        self._seats = seats
        self._tasks = TaskSet("connections")

    def open(self) -> None:
        """Begin to accept."""
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        self._tasks.start(self._sweep(), "sweep")

    async def aclose(self) -> None:
        """Stop accepting; connections that are served go on."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
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
            seat = self._seats.take(str(where[0]), time.monotonic())
            if seat is None:
                sock.close()
                continue
            seat.close = sock.close
            self._tasks.start(self._serve(sock, seat), "handshake")

    def _accept_again(self) -> None:
        if self._listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def _serve(self, sock: socket.socket, seat: Seat) -> None:
        """Hand a connection to uvicorn once TLS stands; it gives the seat back when it ends."""
        shaking = asyncio.current_task()
        assert shaking is not None

        def give_up() -> None:
            shaking.cancel()

        seat.close = give_up
        state = {PLACE: Place(self._seats, seat)}
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Http(self._settings, self._server.server_state, state),
                sock,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except BaseException as error:
            self._seats.leave(seat)
            sock.close()
            if not isinstance(error, OSError | asyncio.CancelledError):
                raise
            return
        seat.close = transport.abort

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            if ended := self._seats.end_late(time.monotonic()):
                logger.info("%d connections have proved nothing within %.0f s: closed", ended, UNPROVEN_SECONDS)
