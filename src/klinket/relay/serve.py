"""A relay put together: certificate, server, live channel."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack

from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock, entropy
from klinket.net.exposition import Exposition
from klinket.net.metrics_endpoint import served
from klinket.net.tasks import TaskSet
from klinket.relay import certificate
from klinket.relay.channel import keep_channel
from klinket.relay.config import RelayConfig
from klinket.relay.core import RelayCore
from klinket.relay.observed import Observed
from klinket.relay.server import RelayServer
from klinket.wire.relay import RelayConfiguration, RelayReport
from klinket.wire.version import PRODUCT_VERSION

logger = logging.getLogger(__name__)


async def run(config: RelayConfig, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises OSError when the address cannot be listened on, InvalidInput for a bad authority."""
    trusting = controller_context(config.controller_ca)
    context, digest = certificate.load_or_make(config.state)
    clock = PeerClock()
    core = RelayCore(config.limits, entropy)
    server = RelayServer(core, context, config.limits, clock.now)
    port = server.listen(config.listen)
    logger.info("relay listens on %s port %d, peers dial %s", config.listen.host, port, config.advertise)

    def report() -> RelayReport:
        return RelayReport(
            address=str(config.advertise),
            certificate_sha256=digest,
            version=PRODUCT_VERSION,
            pairs=server.pairs,
            waiting=core.waiting,
        )

    def configure(message: RelayConfiguration) -> None:
        core.configure(message.relay, message.network, message.ticket_keys)

    observed = Observed(core, clock, server.traffic, lambda: server.pairs, server.received)
    tasks = TaskSet("relay")
    channel = tasks.start(keep_channel(config, trusting, clock, report, configure, observed.attachment), "channel")
    stopped = tasks.start(stop.wait(), "stop")
    watched = AsyncExitStack()
    try:
        await watched.enter_async_context(served(config.metrics, lambda: Exposition("relay", observed.metrics), observed.ready))
        await asyncio.wait({channel, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if channel.done():
            await channel  # it never ends by itself: whoever started the relay should see why it did
    finally:
        await watched.aclose()
        await tasks.aclose()
        await server.aclose()
