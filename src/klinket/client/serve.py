"""`klinket client`: a session and its proxies, until it is stopped or the session ends for good."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from klinket.client.capture.proxy import Proxy, speak_http, speak_socks
from klinket.client.client import Client
from klinket.domain.errors import ControllerUnreachable, Throttled
from klinket.net.backoff import Backoff
from klinket.net.sockets import HostPort
from klinket.net.tasks import first_of
from klinket.wire.key_file import KeyFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Where to listen; None: not at all. `others_direct`: what is not granted is dialled from here; `token`: must be shown."""

    http: HostPort | None
    socks: HostPort | None
    others_direct: bool = False
    token: str | None = field(default=None, repr=False)


async def run(key_file: KeyFile, settings: ProxySettings, stop: asyncio.Event) -> None:
    """Serve until `stop`; raises AuthenticationFailed when the key does not work (any more)."""
    client = Client(key_file)
    proxies: list[Proxy] = []
    try:
        for address, speak, name in ((settings.http, speak_http, "HTTP"), (settings.socks, speak_socks, "SOCKS5")):
            if address is not None:
                proxy = Proxy(client, speak, others_direct=settings.others_direct, token=settings.token)
                proxies.append(proxy)
                logger.info("%s proxy on %s", name, proxy.listen(address))
        if not await _start(client, stop):
            return
        logger.info("online: %d resources granted", len(client.resources))
        await first_of(stop, client.ended)
        if client.end_reason is not None:
            raise client.end_reason
    finally:
        for proxy in proxies:
            await proxy.aclose()
        await client.aclose()


async def _start(client: Client, stop: asyncio.Event) -> bool:
    """Log in, trying again while the controller cannot be reached; False when stopped before."""
    backoff = Backoff()
    while True:
        starting = asyncio.ensure_future(client.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return False
        try:
            starting.result()
            return True
        except (ControllerUnreachable, Throttled) as error:
            delay = max(backoff.next(), error.retry_after or 0)
            logger.warning("%s; trying again in %.1f s", error, delay)
        try:
            async with asyncio.timeout(delay):
                await stop.wait()
            return False
        except TimeoutError:
            continue
