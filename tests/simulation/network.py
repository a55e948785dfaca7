"""The simulated network: who can talk to whom right now, how long words take, and WebSockets made of two ordered lines.

What TCP does about loss and reordering shows as delay: words come in order, some late. In a partition they wait, as
retransmissions do; whoever waits too long gives up by its own timeouts, which are the real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosedError

#: Seconds between looks whether a partition is over.
RETRANSMIT_SECONDS = 0.2
_END = object()


class Network:
    """`clock`: virtual seconds. Partitions are between pairs of names; a name that is down is reached by nobody."""

    def __init__(self, random: Random, clock: Callable[[], float]) -> None:
        self._random = random
        self._clock = clock
        self._apart: set[frozenset[str]] = set()
        self._changed: dict[frozenset[str], float] = {}

    def delay(self) -> float:
        """Return how long a word takes, in seconds: some are lost, and sent again."""
        delay = self._random.uniform(0.001, 0.04)
        lost = self._random.random()
        return delay + (0.4 if lost < 0.01 else 0.2 if lost < 0.05 else 0.0)

    def part(self, one: str, other: str) -> None:
        """Begin a partition."""
        pair = frozenset((one, other))
        self._apart.add(pair)
        self._changed[pair] = self._clock()

    def join(self, one: str, other: str) -> None:
        """End a partition."""
        pair = frozenset((one, other))
        self._apart.discard(pair)
        self._changed[pair] = self._clock()

    def join_all(self) -> None:
        """End all partitions."""
        for pair in list(self._apart):
            self._apart.discard(pair)
            self._changed[pair] = self._clock()

    def joined(self, one: str, other: str) -> bool:
        """Return whether words get through."""
        return frozenset((one, other)) not in self._apart

    def joined_since(self, one: str, other: str) -> float:
        """Return since when there is no partition; infinity while there is one."""
        return self._changed.get(frozenset((one, other)), 0.0) if self.joined(one, other) else float("inf")


class Line:
    """One direction of a connection: words arrive in order."""

    def __init__(self, network: Network, sender: str, receiver: str) -> None:
        self._network = network
        self._names = sender, receiver
        self._sent: asyncio.Queue[tuple[float, object]] = asyncio.Queue()
        self.arrived: asyncio.Queue[object] = asyncio.Queue()
        self._carrying = asyncio.ensure_future(self._carry())

    def send(self, word: object) -> None:
        """Send a word; never waits."""
        self._sent.put_nowait((asyncio.get_running_loop().time() + self._network.delay(), word))

    def end(self) -> None:
        """Tell the receiver that nothing more comes."""
        self.send(_END)

    async def _carry(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, word = await self._sent.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            while not self._network.joined(*self._names):
                await asyncio.sleep(RETRANSMIT_SECONDS)
            self.arrived.put_nowait(word)
            if word is _END:
                return

    def drop(self) -> None:
        """Forget the line."""
        self._carrying.cancel()


class Connection:
    """A WebSocket: `server` and `client` are its two ends, in the shapes that starlette and websockets give them."""

    def __init__(self, network: Network, client: str, server: str, address: str) -> None:
        self.names = client, server
        self._up = Line(network, client, server)
        self._down = Line(network, server, client)
        self.server = ServerEnd(self._up, self._down, address)
        self.client = ClientEnd(self._down, self._up)

    def drop(self) -> None:
        """Forget both lines."""
        self._up.drop()
        self._down.drop()


class ServerEnd:
    """As much of starlette's WebSocket as the controller uses."""

    def __init__(self, incoming: Line, outgoing: Line, address: str) -> None:
        self.client = SimpleNamespace(host=address)
        self.scope: dict[str, Any] = {}
        self._incoming, self._outgoing = incoming, outgoing
        self._over = False

    async def accept(self) -> None:
        """Do nothing: it was accepted when it was made."""

    async def send_text(self, text: str) -> None:
        """Send a word."""
        if self._over:
            raise WebSocketDisconnect(1006)
        self._outgoing.send(text)

    async def receive(self) -> dict[str, Any]:
        """Return the next event."""
        word = _END if self._over else await self._incoming.arrived.get()
        if word is _END:
            self._over = True
            return {"type": "websocket.disconnect", "code": 1006}
        return {"type": "websocket.receive", "text": word}

    async def close(self, code: int = 1000) -> None:
        """End both directions."""
        if not self._over:
            self._over = True
            self._outgoing.end()
            self._incoming.arrived.put_nowait(_END)


class ClientEnd:
    """As much of websockets' ClientConnection as peers use."""

    def __init__(self, incoming: Line, outgoing: Line) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._over = False
        self.transport = SimpleNamespace(abort=self.abort)

    async def send(self, text: str) -> None:
        """Send a word."""
        if self._over:
            raise ConnectionClosedError(None, None)
        self._outgoing.send(text)

    async def recv(self) -> str:
        """Return the next word."""
        word = _END if self._over else await self._incoming.arrived.get()
        if word is _END:
            self._over = True
            raise ConnectionClosedError(None, None)
        return str(word)

    async def close(self) -> None:
        """End both directions."""
        self.abort()

    def abort(self) -> None:
        """End both directions at once."""
        if not self._over:
            self._over = True
            self._outgoing.end()
            self._incoming.arrived.put_nowait(_END)
