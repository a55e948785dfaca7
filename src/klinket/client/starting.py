"""Logging in for something that cannot wait for ever: again and again, until a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from klinket.client.client import Client
from klinket.domain.errors import ControllerUnreachable, NotTheController, Throttled
from klinket.net.backoff import Backoff

#: Seconds before the deadline at which a login is tried for the last time.
LAST_TRY_SECONDS = 0.5


async def start(client: Client, deadline: float, waiting: Callable[[str], None] = lambda _: None) -> None:
    """Log in until `deadline` (time.monotonic); `waiting` is told why it takes so long.

    Raises AuthenticationFailed, and ControllerUnreachable or Throttled when there is no time left.
    """
    backoff = Backoff()
    while True:
        try:
            await client.start()
            return
        except NotTheController:
            raise  # waiting does not make it the controller
        except (ControllerUnreachable, Throttled) as error:
            left = deadline - LAST_TRY_SECONDS - time.monotonic()
            if left <= 0 or (error.retry_after or 0.0) > left:
                raise
            waiting(error.message)
            await asyncio.sleep(min(max(backoff.next(), error.retry_after or 0.0), left))
