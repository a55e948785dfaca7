"""A live channel: a WebSocket to the controller that is made again whenever it breaks, with backed-off, jittered tries."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from klinket.domain.errors import ControllerUnreachable, InvalidInput
from klinket.net import sockets
from klinket.net.sockets import HostPort
from klinket.net.tls import TLS_TOO_OLD, is_too_old

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

logger = logging.getLogger(__name__)

#: Seconds to connect, TLS and WebSocket handshake included.
CONNECT_SECONDS = 10.0
_HTTPS_PORT = 443
#: Seconds between configurations that a peer asks for, at the least.
RENEW_SECONDS = 1.0
#: Close code for a peer that is not believed (RFC 6455 §7.4.1).
POLICY_VIOLATION = 1008


def controller_context(authority_pem: str | None) -> ssl.SSLContext:
    """Return a context that trusts the given authorities only, or the system's when None; raises InvalidInput."""
    try:
        if authority_pem is not None and not authority_pem.strip():
            raise ValueError("it is empty")  # ssl would take the system's authorities instead
        context = ssl.create_default_context(cadata=authority_pem)
    except (ssl.SSLError, ValueError, TypeError) as error:  # the last two: not ASCII
        raise InvalidInput("controller_ca", f"not certificates in PEM: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # browsers and tools may come with 1.2, klinket's own parts do not
    return context


def load_library() -> None:
    """Import the library of channels. It takes a tenth of a client's start, and can be had while a login is on its way."""
    import websockets.asyncio.client  # noqa: F401


@asynccontextmanager
async def open_channel(
    url: str, path: str, context: ssl.SSLContext, *, max_bytes: int, headers: dict[str, str] | None = None
) -> AsyncIterator[ClientConnection]:
    """Connect to `path` of the controller's https `url`; raises ControllerUnreachable. No redirects, no proxies."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    address = urlsplit(url)
    try:
        connection = await connect(
            f"wss://{address.netloc}{path}",
            sock=await sockets.connect(HostPort(address.hostname or "", address.port or _HTTPS_PORT), CONNECT_SECONDS),
            ssl=context,
            compression=None,
            max_size=max_bytes,
            open_timeout=CONNECT_SECONDS,
            close_timeout=2,
            ping_interval=None,
            additional_headers=headers,
            user_agent_header=None,
            proxy=None,
        )
    except (OSError, WebSocketException, TimeoutError, ValueError) as error:  # ValueError: a redirect, which is not followed
        hint = TLS_TOO_OLD if is_too_old(error) else None
        raise ControllerUnreachable(f"no live channel to {address.netloc}: {_why(error)}", hint=hint) from error
    try:
        yield connection
    finally:
        await connection.close()


async def receive(connection: ClientConnection, silence: float) -> str:
    """Return the next message; raises ControllerUnreachable when the channel ends or is silent for `silence` seconds."""
    from websockets.exceptions import WebSocketException

    try:
        async with asyncio.timeout(silence):
            message = await connection.recv()
    except TimeoutError as error:
        raise ControllerUnreachable(f"the controller was silent for {silence:.0f} s") from error
    except WebSocketException as error:
        raise ControllerUnreachable(f"the live channel ended: {_why(error)}") from error
    return message if isinstance(message, str) else message.decode("utf-8", "replace")


async def send(connection: ClientConnection, text: str) -> None:
    """Send one message; raises ControllerUnreachable."""
    from websockets.exceptions import WebSocketException

    try:
        await connection.send(text)
    except WebSocketException as error:
        raise ControllerUnreachable(f"the live channel ended: {_why(error)}") from error


async def until_due(seconds: float, sooner: asyncio.Event) -> None:
    """Wait until a configuration is due in `seconds`, or `sooner` is set, which it clears; for RENEW_SECONDS at the least."""
    await asyncio.sleep(RENEW_SECONDS)
    try:
        async with asyncio.timeout(max(0.0, seconds - RENEW_SECONDS)):
            await sooner.wait()
    except TimeoutError:
        pass
    sooner.clear()


def was_refused(error: BaseException) -> bool:
    """Return whether a channel's end says that its peer is not believed: HTTP 401 or 403 before it, or close code 1008.

    A gateway may answer 403 as well: this is a reason to look, never one to end for good.
    """
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    cause = error.__cause__ if isinstance(error, ControllerUnreachable) else error
    if isinstance(cause, InvalidStatus):
        return cause.response.status_code in (401, 403)
    return isinstance(cause, ConnectionClosed) and cause.rcvd is not None and cause.rcvd.code == POLICY_VIOLATION


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return str(error) or type(error).__name__
