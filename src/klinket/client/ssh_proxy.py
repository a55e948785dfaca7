"""`klinket ssh-proxy`: a session for one flow on standard input and output."""

from __future__ import annotations

import asyncio
import signal
import sys
import time

from klinket.client import standard_streams, starting
from klinket.client.client import Client
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import HINTS
from klinket.wire.key_file import KeyFile


async def run(key_file: KeyFile, host: str, port: int, timeout: float, stop: asyncio.Event) -> None:
    """Carry the flow to its end, or until `stop`; raises FlowRefused when it was refused or has ended early."""
    client = Client(key_file)
    if sys.platform != "win32":  # what ssh sends when it is over: the session is ended all the same
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stop.set)
    working = asyncio.ensure_future(_carry(client, host, port, time.monotonic() + timeout))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
        await client.aclose()


async def _carry(client: Client, host: str, port: int, deadline: float) -> None:
    await starting.start(client, deadline)
    flow = await client.open_stream(client.destination(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))
    failure = await standard_streams.carry(flow)
    if failure is not None:
        message = failure.message or "the connection ended early"
        raise FlowRefused(failure.failure, message, hint=HINTS.get(failure.failure), retry_after=failure.retry_after)
