"""Who is attached by a live channel right now, and sending to them without waiting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from starlette.websockets import WebSocket, WebSocketDisconnect

from klinket.controller.app.snapshot import Snapshot
from klinket.domain.cut import Stamp
from klinket.domain.errors import ProtocolError
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, Thumbprint
from klinket.wire import control

#: Messages that wait for one peer; one more closes its channel, and it attaches again for the full state.
MAX_QUEUED = 256
#: Clients that a controller takes back in a second, and milliseconds over which they come back at the most, however many.
ATTACHES_PER_SECOND = 400
MAX_SPREAD_MS = round(1000 * control.MAX_SPREAD_SECONDS)
#: Sessions that have logged in and not attached yet; the oldest one beyond is forgotten: it attaches as one that comes back.
MAX_UNATTACHED = 100_000
#: WebSocket close code for a peer that has to attach again (RFC 6455 §7.4.1, 1013: try again later).
TRY_AGAIN = 1013
#: Close code for a peer that was refused.
POLICY_VIOLATION = 1008


async def receive_text(socket: WebSocket) -> str:
    """Return the next message; raises WebSocketDisconnect, and ProtocolError for a binary one."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"], message.get("reason"))
    text = message.get("text")
    if text is None:
        raise ProtocolError("messages on a live channel are text")
    return str(text)


class Outbox:
    """Messages to one peer, in order. `put` never waits; `run` sends until the channel ends."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._code = POLICY_VIOLATION
        self._queue: asyncio.Queue[str | None] = asyncio.Queue(MAX_QUEUED)
        self.overflowed = False

    def put(self, message: control.Message) -> None:
        """Queue a message; a full queue ends the channel."""
        self.put_text(control.encode(message))

    def put_text(self, text: str) -> None:
        """Queue an encoded message."""
        if self.overflowed:
            return
        try:
            self._queue.put_nowait(text)
        except asyncio.QueueFull:
            self.overflowed = True

    def finish(self, code: int = POLICY_VIOLATION) -> None:
        """Close the channel after what is queued."""
        self._code = code
        if not self._queue.full():
            self._queue.put_nowait(None)
        else:
            self.overflowed = True

    async def run(self) -> None:
        """Send until finish(), overflow or the end of the connection; closes it."""
        try:
            while not self.overflowed and (text := await self._queue.get()) is not None:
                await self._socket.send_text(text)
            await self._socket.close(TRY_AGAIN if self.overflowed else self._code)
        except (WebSocketDisconnect, RuntimeError):
            pass  # it has gone; the receiving side notices as well


@dataclass(eq=False)
class ClientPeer:
    """An attached session."""

    principal: Principal
    jkt: Thumbprint
    outbox: Outbox
    #: What its grants are to be for; (): everything its account was granted.
    only: tuple[str, ...] = ()
    #: Where its live channel comes from.
    address: str = ""
    #: What it was told last, and the snapshot it was told from.
    sent: object = None
    known: Snapshot | None = None
    #: When its next Renew is answered, on the event loop's clock.
    renew_from: float = 0.0

    @property
    def stamp(self) -> Stamp:
        """Return the revision it was told last; (0, 0): nothing yet."""
        return (0, 0) if self.known is None else self.known.stamp


@dataclass(eq=False)
class ConnectorPeer:
    """An attached connector, and the relays it says it is at."""

    connector: ConnectorId
    jkt: Thumbprint
    outbox: Outbox
    relays: tuple[int, ...] = ()
    #: host:port where it listens itself.
    direct: tuple[str, ...] = ()
    #: Where its live channel comes from, and whether it takes part in hole punching.
    address: str = ""
    punches: bool = False
    #: What the configuration it has was made of; None: it has none yet, and could not apply a cut.
    sent: object = None
    dismissed: bool = False
    renew_from: float = 0.0
    #: When its process began, as it has told on this channel.
    started_ms: int = 0
    _early: list[control.Cut] = field(default_factory=list)
    _unanswered: set[int] = field(default_factory=set)
    _all_answered: asyncio.Event = field(default_factory=asyncio.Event)

    def configure(self, message: control.ConnectorConfiguration, made_of: object) -> None:
        """Send a configuration, and after the first one the cuts that were ordered while it was made."""
        self.outbox.put(message)
        self.sent = made_of
        for cut in self._early:
            self.outbox.put(cut)
        self._early.clear()

    def cut(self, message: control.Cut) -> None:
        """Send a cut, not before the configuration that says whose signature it bears."""
        self._unanswered.add(message.id)
        self._all_answered.clear()
        if self.sent is None:
            self._early.append(message)
        else:
            self.outbox.put(message)

    def answered(self, cut: int) -> None:
        """Note the receipt of a cut."""
        self._unanswered.discard(cut)
        if not self._unanswered:
            self._all_answered.set()

    async def all_answered(self) -> None:
        """Wait until every cut sent here is answered."""
        if self._unanswered:
            await self._all_answered.wait()


@dataclass(eq=False)
class RelayPeer:
    """An attached relay, and the hash of the token it came with."""

    relay: int
    token_hash: str = field(repr=False)
    outbox: Outbox


@dataclass
class Peers:
    """All attached peers. A newer channel of the same peer replaces the older."""

    clients: dict[str, ClientPeer] = field(default_factory=dict)
    connectors: dict[int, ConnectorPeer] = field(default_factory=dict)
    relays: dict[int, RelayPeer] = field(default_factory=dict)
    #: Clients that are likely to attach soon, to a controller that has just been started.
    expected: int = 0
    #: Sessions that take a seat right now, long after their login: they count as attached.
    seating: set[str] = field(default_factory=set)
    _unattached: dict[str, None] = field(default_factory=dict)

    def logged_in(self, session: str) -> None:
        """Note a session of this process: until it has attached, its attachment is its first."""
        self._unattached[session] = None
        if len(self._unattached) > MAX_UNATTACHED:
            del self._unattached[next(iter(self._unattached))]

    def is_new(self, session: str) -> bool:
        """Return whether a session has logged in at this process and never attached."""
        return session in self._unattached

    def settled(self, session: str) -> None:
        """The session has attached: from now on it comes back."""
        self._unattached.pop(session, None)

    def seated(self) -> set[str]:
        """Return the sessions that hold a seat however old they are."""
        return {*self.clients, *self.seating}

    def spread_ms(self) -> int:
        """Return over how many milliseconds clients have to come back, should they lose this channel: those attached now, and
        those that have lost it before and are not back yet."""
        return min(MAX_SPREAD_MS, 1000 * max(len(self.clients), self.expected) // ATTACHES_PER_SECOND)

    def dismiss_all(self) -> None:
        """Close all channels: their peers attach again, to whichever controller answers then."""
        outboxes = [peer.outbox for peer in self.clients.values()]
        outboxes += [peer.outbox for peer in self.connectors.values()]
        outboxes += [peer.outbox for peer in self.relays.values()]
        for outbox in outboxes:
            outbox.finish(TRY_AGAIN)

    def direct(self) -> dict[int, tuple[str, ...]]:
        """Return where attached connectors listen themselves; those that do not are left out."""
        return {id: peer.direct for id, peer in self.connectors.items() if peer.direct}

    def punching(self) -> frozenset[int]:
        """Return the attached connectors that take part in hole punching."""
        return frozenset(id for id, peer in self.connectors.items() if peer.punches)

    def online(self) -> dict[int, tuple[int, ...]]:
        """Return the attached connectors with the relays each is at."""
        return {id: peer.relays for id, peer in self.connectors.items()}
