"""The relay's live channel: it reports itself and learns the keys that sign tickets."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable

from klinket.net import channel
from klinket.net.backoff import Backoff
from klinket.net.clock import PeerClock
from klinket.net.tasks import TaskSet
from klinket.relay.config import RelayConfig
from klinket.wire import relay as wire
from klinket.wire.relay import RelayConfiguration, RelayReport

logger = logging.getLogger(__name__)

_DEAD_HINT = (
    "; the controller does not take this relay's token: it was replaced, or the relay was removed. On the controller's machine:"
    " klinket issue relay-token NAME, into --token-file"
)
#: Bytes of one message from the controller.
MAX_MESSAGE_BYTES = 262_144


async def keep_channel(
    config: RelayConfig,
    context: ssl.SSLContext,
    clock: PeerClock,
    report: Callable[[], RelayReport],
    configure: Callable[[RelayConfiguration], None],
    news: asyncio.Event,
    attached: Callable[[bool], None] = lambda attached: None,
) -> None:
    """Keep the channel up for ever; pairs live on while it is down. `context`: whom to believe to be the controller.

    `news`: set when there is something to report at once. `attached`: hears that it is up, and that it is not any more.
    """
    backoff = Backoff()
    while True:
        try:
            async with channel.open_channel(
                config.controller,
                wire.RELAY_CHANNEL_PATH,
                context,
                max_bytes=MAX_MESSAGE_BYTES,
                headers={"Authorization": f"Bearer {config.current_token()}"},
            ) as connection:
                await channel.send(connection, wire.encode(report()))
                first = True

                async def report_on() -> None:
                    while True:
                        try:
                            async with asyncio.timeout(wire.RELAY_REPORT_SECONDS):
                                await news.wait()
                        except TimeoutError:
                            pass
                        news.clear()
                        await channel.send(connection, wire.encode(report()))

                tasks = TaskSet("relay channel")
                tasks.start(report_on(), "reports")
                try:
                    while True:
                        text = await channel.receive(connection, wire.RELAY_SILENCE_SECONDS)
                        message = wire.decode_configuration(text)
                        clock.set(message.time_ms)
                        configure(message)
                        attached(True)
                        backoff.reset()
                        if first:
                            logger.info("relay %d is attached to %s", message.relay, config.controller)
                            first = False
                finally:
                    attached(False)
                    await tasks.aclose()
        except Exception as error:
            delay = backoff.next()
            logger.warning("relay: %s; trying again in %.1f s%s", error, delay, _DEAD_HINT if channel.was_refused(error) else "")
            await asyncio.sleep(delay)
