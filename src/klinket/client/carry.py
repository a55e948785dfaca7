"""Carrying a flow to its end, for those who wait for it."""

from __future__ import annotations

import asyncio
import socket

from klinket.client.ports import CarriedFlow


async def carry_to_the_end(flow: CarriedFlow, local: socket.socket, early: bytes) -> None:
    """Implements CarriedFlow.carry by its begin() and abort(): a flow that nobody waits for any more is given up."""
    over: asyncio.Future[CarriedFlow] = asyncio.get_running_loop().create_future()
    await flow.begin(local, early, over.set_result)
    try:
        await asyncio.shield(over)
    except asyncio.CancelledError:
        flow.abort()
        raise
