"""Local ports that lead to one place each: every connection becomes a flow, and one that is refused is reset."""

from __future__ import annotations

import socket
from collections.abc import Callable

from klinket.client.capture.proxy import Proxy, Speak
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination
from klinket.net import sockets


def speak_for(destination: Destination) -> Speak:
    """Return how a Proxy serves a connection that leads to `destination`.

    The program's connect() has succeeded by then, the kernel does that: a refusal is a reset before the first byte.
    """

    async def speak(proxy: Proxy, program: socket.socket, asked: Callable[[], object]) -> None:
        asked()  # to come here says it all
        try:
            flow = await proxy.open(destination)
        except FlowRefused:
            sockets.reset(program)
            return
        await flow.carry(program)

    return speak
