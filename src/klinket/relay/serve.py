"""A relay put together: certificate, server, live channel."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack

from klinket.net import workers
from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock, entropy
from klinket.net.exposition import Exposition
from klinket.net.metrics_endpoint import served
from klinket.net.tasks import TaskSet
from klinket.relay.certificate import Certificates
from klinket.relay.channel import keep_channel
from klinket.relay.config import RelayConfig
from klinket.relay.core import RelayCore
from klinket.relay.datagram_port import DatagramPort
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.observed import Observed
from klinket.relay.server import RelayServer
from klinket.relay.sharing import PairSharing
from klinket.wire.relay import RelayConfiguration, RelayReport
from klinket.wire.version import PRODUCT_VERSION

logger = logging.getLogger(__name__)


async def run(config: RelayConfig, stop: asyncio.Event, reload: asyncio.Event | None = None) -> None:
    """Serve until `stop` is set, and then until pairs have ended, or the time for that. `reload`: look at the certificate again.

    Raises OSError when the address cannot be listened on, InvalidInput for a bad authority."""
    trusting = controller_context(config.controller_ca)
    certificates = Certificates(config.state)
    clock = PeerClock()
    core = RelayCore(config.limits, entropy)
    count = workers.default_processes() if config.processes is None else config.processes
    sharing = PairSharing(count, config.limits) if count > 1 and workers.there_are() else None
    server = RelayServer(core, certificates.context, config.limits, clock.now, sharing)
    port = server.listen(config.listen)
    logger.info("relay listens on %s port %d, peers dial %s", config.listen.host, port, config.advertise)
    forwarding = DatagramForwarding(core, config.limits, entropy, clock.now, time.monotonic)
    datagrams = DatagramPort(forwarding)
    if config.datagram_port != 0 and datagrams.listen(config.listen.host, config.datagram_port or port):
        server.forwarding = forwarding
        server.datagram_port = config.datagram_port or config.advertise.port

    def report() -> RelayReport:
        return RelayReport(
            address=str(config.advertise),
            certificate_sha256=certificates.digest,
            version=PRODUCT_VERSION,
            pairs=server.pairs,
            waiting=core.waiting,
        )

    def configure(message: RelayConfiguration) -> None:
        core.configure(message.relay, message.network, message.ticket_keys)

    news = asyncio.Event()

    async def follow_certificate(asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                if not certificates.reload():
                    continue
            except (OSError, ValueError) as error:  # an SSLError is an OSError
                logger.error("the certificate in %s cannot be used, the present one stays: %s", config.state, error)
                continue
            server.use(certificates.context)
            news.set()
            logger.info("a new certificate: peers that do not know of it are shown the former one")

    observed = Observed(core, clock, server.traffic, lambda: server.pairs, server.received, forwarding)
    tasks = TaskSet("relay")
    channel = tasks.start(keep_channel(config, trusting, clock, report, configure, news, observed.attachment), "channel")
    if reload is not None:
        tasks.start(follow_certificate(reload), "certificate")
    stopped = tasks.start(stop.wait(), "stop")
    watched = AsyncExitStack()
    try:
        await watched.enter_async_context(served(config.metrics, lambda: Exposition("relay", observed.metrics), observed.ready))
        await asyncio.wait({channel, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if channel.done():
            await channel  # it never ends by itself: whoever started the relay should see why it did
        await _drain(server, config.drain_seconds)
    finally:
        await watched.aclose()
        await tasks.aclose()
        await server.aclose()
        datagrams.close()


async def _drain(server: RelayServer, seconds: float) -> None:
    """Send away who comes, and wait for pairs: clients move theirs when their connectors have left."""
    server.drain()
    logger.info("stopping: no new pairs; %d have %.0f s", server.pairs, seconds)
    deadline = asyncio.get_running_loop().time() + seconds
    while server.pairs and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
    if server.pairs:
        logger.warning("the time is over: %d pairs are reset", server.pairs)
