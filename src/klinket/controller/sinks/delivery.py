"""Carries events to sinks: in order, at least once, each sink at its own pace, none holding up another."""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import logging
import smtplib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from klinket.controller.app import sinks
from klinket.controller.app.ports import Store
from klinket.controller.app.sinks import Batch
from klinket.controller.sinks import files, smtp, syslog, webhook
from klinket.domain.errors import InvalidInput, KlinketError
from klinket.domain.sink import SinkKind

logger = logging.getLogger(__name__)

#: Seconds between looks for new events, while there are sinks.
LOOK_SECONDS = 1.0
#: Deliveries at the same time; a slow sink holds one of them.
THREADS = 4
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Deliveries:
    """`open_secret(sealed, what)` decrypts what rests in the database; `allowed`: private ranges that may be dialled."""

    def __init__(self, store: Store, open_secret: Callable[[bytes, str], bytes], allowed: Sequence[_Network] = ()) -> None:
        self._store = store
        self._open_secret = open_secret
        self._allowed = tuple(allowed)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sink")
        self._busy: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                try:
                    await self.look()
                except KlinketError as error:
                    logger.warning("sinks: %s", error.message)
                except Exception:
                    logger.exception("sinks: the events could not be read")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in list(self._busy.values()):
                task.cancel()
            await asyncio.gather(*self._busy.values(), return_exceptions=True)
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def look(self) -> None:
        """Start a delivery to every sink that has something to get and is not busy."""
        for batch in await self._store.read(sinks.due):
            if batch.sink.id not in self._busy:
                task = asyncio.create_task(self._deliver(batch), name=f"sink {batch.sink.id}")
                self._busy[batch.sink.id] = task
                task.add_done_callback(lambda _, id=batch.sink.id: self._busy.pop(id, None))  # type: ignore[misc]

    async def idle(self) -> None:
        """Wait until no delivery is under way."""
        await asyncio.gather(*self._busy.values(), return_exceptions=True)

    async def _deliver(self, batch: Batch) -> None:
        try:
            if batch.events:
                await asyncio.get_running_loop().run_in_executor(self._threads, self.deliver, batch)
        except (OSError, http.client.HTTPException, smtplib.SMTPException, KlinketError, ValueError) as error:
            text = str(error) or type(error).__name__
            logger.warning("sink %r: %d events not delivered: %s", batch.sink.name, len(batch.events), text)
            await self._store.write(lambda tx: sinks.failed(tx, batch, text))
            return
        except Exception as error:  # tried again as late as after any other, not each second for ever
            unexpected = f"unexpected {type(error).__name__}: see the controller's log"
            logger.exception("sink %r: %d events not delivered", batch.sink.name, len(batch.events))
            await self._store.write(lambda tx: sinks.failed(tx, batch, unexpected))
            return
        await self._store.write(lambda tx: sinks.delivered(tx, batch))

    def deliver(self, batch: Batch) -> None:
        """Deliver one batch now, in this thread; raises what the kind raises."""
        kind = SinkKind(batch.sink.kind)
        if kind is SinkKind.STDOUT:
            files.deliver_to_stdout(batch)
        elif kind is SinkKind.FILE:
            files.deliver_to_file(batch)
        else:
            sealed = batch.sink.sealed_secret
            if sealed is None and (kind is SinkKind.WEBHOOK or batch.sink.settings.get("user")):
                # Never signed with nothing, nor logged in with nothing.
                raise InvalidInput("secret", sinks.GIVE_IT_AGAIN)
            secret = b"" if sealed is None else self._open_secret(sealed, sinks.SECRET_PURPOSE)
            over_network = {SinkKind.WEBHOOK: webhook, SinkKind.SYSLOG: syslog, SinkKind.SMTP: smtp}
            over_network[kind].deliver(batch, secret, self._allowed)
