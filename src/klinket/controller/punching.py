"""Meetings of a client and a connector who punch holes through their NATs (docs/decisions/0024).

The controller passes on only what it has seen itself: the source of a connection on which a side has shown its one-time token,
from the very address its live channel comes from. So neither side can have the other dial a third party.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from klinket.controller.peers import ClientPeer, ConnectorPeer, Outbox
from klinket.domain.address import parse_ip
from klinket.domain.errors import Forbidden
from klinket.domain.punch import ENDPOINTS, Endpoint, objection, objection_to_anybody
from klinket.domain.token_buckets import TokenBuckets
from klinket.wire.control import PunchInvitation, PunchRefused, PunchStart

#: Seconds a meeting may take until both sides were seen.
MEETING_SECONDS = 10.0
#: Meetings under way, of all.
MAX_MEETINGS = 1_000
#: Meetings that a session may ask for at once, and a second after that.
SESSION_BURST, SESSION_PER_SECOND = 4, 0.05
#: Meetings that a connector is asked for at once, and a second after that.
CONNECTOR_BURST, CONNECTOR_PER_SECOND = 10, 2.0
#: Milliseconds by which the start is put off for the side that is nearer, at the most.
MAX_START_MS = 1_000
TOKEN_BYTES = 24
_BEGUN = "both sides were seen, and it has begun"


class Reflection(msgspec.Struct):
    """Body of a request that wants to know where it comes from. `connect_ms`: how long its TCP connect took."""

    token: str
    connect_ms: float = 0.0


@dataclass(eq=False)
class _Side:
    outbox: Outbox = field(repr=False)
    address: str
    token: str = field(repr=False)
    seen: list[Endpoint] = field(default_factory=list)
    connect_ms: float = 0.0

    @property
    def came(self) -> bool:
        return len(self.seen) == ENDPOINTS


@dataclass(eq=False)
class _Meeting:
    id: str
    until: float
    client: _Side
    connector: _Side
    connector_id: int

    @property
    def sides(self) -> tuple[tuple[str, _Side], tuple[str, _Side]]:
        return ("the client", self.client), ("the connector", self.connector)


class Punching:
    """All meetings. `clock`: seconds that do not go back; `told`: hears "asked", "refused" or "started", for the metrics."""

    def __init__(
        self,
        enabled: bool,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        told: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self.enabled = enabled
        self._clock = clock
        self._entropy = entropy
        self._told = told
        #: By the digest of the token: how long a look-up takes tells nothing of a token.
        self._meetings: dict[bytes, tuple[_Meeting, _Side]] = {}
        #: Why meetings are over, by the digest of the token, for as long as somebody may still come: until when, and the reason.
        self._over: dict[bytes, tuple[float, str]] = {}
        self._sessions = TokenBuckets(SESSION_BURST, SESSION_PER_SECOND)
        self._connectors = TokenBuckets(CONNECTOR_BURST, CONNECTOR_PER_SECOND)

    def ask(self, peer: ClientPeer, connector_id: int, connector: ConnectorPeer | None, granted: Callable[[], bool]) -> None:
        """Invite both sides to a meeting, or tell the client why there is none. `granted`: something behind the connector is."""
        self._told("asked")
        reason = self._refusal(peer, connector_id, connector, granted)
        if reason is not None or connector is None:
            self._told("refused")
            peer.outbox.put(PunchRefused(connector=connector_id, message=reason or ""))
            return
        meeting = _Meeting(
            self._random(),
            self._clock() + MEETING_SECONDS,
            _Side(peer.outbox, peer.address, self._random()),
            _Side(connector.outbox, connector.address, self._random()),
            connector_id,
        )
        for side in (meeting.client, meeting.connector):
            self._meetings[_digest(side.token)] = meeting, side
            side.outbox.put(PunchInvitation(id=meeting.id, token=side.token, connector=connector_id))

    def _refusal(self, peer: ClientPeer, id: int, connector: ConnectorPeer | None, granted: Callable[[], bool]) -> str | None:
        now = self._clock()
        self._forget_late(now)
        if self._sessions.take(peer.principal.session, now):
            return "the session asks too often"
        if not granted():
            return "nothing behind this connector is granted"
        if not self.enabled or connector is None or not connector.punches:
            return "hole punching is turned off, at the controller or at the connector, or the connector is away"
        if len(self._meetings) >= 2 * MAX_MEETINGS:
            return "too many are meeting now"
        if self._connectors.take(str(id), now):
            return "the connector is asked for too often"
        return None

    def reflect(self, body: Reflection, host: str, port: int, own_host: str) -> str:
        """Note where a side was seen; returns that as "address:port". `own_host`: where the connection came in.

        Raises Forbidden. The last one of both sides starts the meeting.
        """
        self._forget_late(self._clock())
        meeting, side = self._meetings.get(_digest(body.token), (None, None))
        address = parse_ip(host)
        if meeting is None or side is None:
            _, why = self._over.get(_digest(body.token), (0.0, ""))
            raise Forbidden(f"the meeting is over: {why}" if why else "there is no meeting with this token, or it is long over")
        if len(side.seen) >= ENDPOINTS:
            raise Forbidden(f"{ENDPOINTS} connections were seen with this token already")
        if address is None or address != parse_ip(side.address):
            raise Forbidden("the token was given to another address: its live channel does not come from here")
        seen = Endpoint(address, port)
        if (reason := _objection(seen, own_host)) is not None:
            self._end(meeting, reason, side)
            raise Forbidden(f"hole punching does not lead there: {reason}")
        side.seen.append(seen)
        side.connect_ms = max(side.connect_ms, min(float(2 * MAX_START_MS), max(0.0, body.connect_ms)))
        if meeting.client.came and meeting.connector.came:
            self._start(meeting)
        return str(seen)

    def _start(self, meeting: _Meeting) -> None:
        client, connector = meeting.client, meeting.connector
        for own, other in ((client, connector), (connector, client)):
            for endpoint in other.seen:
                if (reason := objection(own.seen[0].host, endpoint)) is not None:
                    self._end(meeting, reason, own)
                    return
        self._forget(meeting, _BEGUN, _BEGUN)
        self._told("started")
        latest = max(client.connect_ms, connector.connect_ms)
        for own, other in ((connector, client), (client, connector)):
            wait = min(MAX_START_MS, round((latest - own.connect_ms) / 2))
            own.outbox.put(PunchStart(id=meeting.id, peers=[str(one) for one in other.seen], in_ms=wait))

    def _end(self, meeting: _Meeting, reason: str, at: _Side) -> None:
        # A connector is not told where a client is whom it does not meet.
        self._forget(meeting, reason, reason if at is meeting.connector else "the client cannot be met")
        self._told("refused")
        meeting.client.outbox.put(PunchRefused(connector=meeting.connector_id, message=reason))

    def _forget(self, meeting: _Meeting, client_told: str, connector_told: str) -> None:
        """Forget a meeting, but for what a side is told that comes to it now."""
        until = self._clock() + MEETING_SECONDS
        for side, reason in ((meeting.client, client_told), (meeting.connector, connector_told)):
            digest = _digest(side.token)
            self._meetings.pop(digest, None)
            self._over[digest] = until, reason
        while len(self._over) > 2 * MAX_MEETINGS:
            del self._over[next(iter(self._over))]

    def _forget_late(self, now: float) -> None:
        """Forget meetings that took too long, and why others are over: both are in the order in which their time ends."""
        while self._over and next(iter(self._over.values()))[0] <= now:
            del self._over[next(iter(self._over))]
        while self._meetings:
            meeting, _ = next(iter(self._meetings.values()))
            if meeting.until > now:
                return
            missing = [
                f"{who} ({len(side.seen)} of {ENDPOINTS} connections seen)" for who, side in meeting.sides if not side.came
            ]
            reason = f"in {MEETING_SECONDS:.0f} s there did not come: {', '.join(missing)}"
            self._forget(meeting, reason, reason)

    def _random(self) -> str:
        return urlsafe_b64encode(self._entropy(TOKEN_BYTES)).decode()


def _objection(seen: Endpoint, own_host: str) -> str | None:
    if seen.host == parse_ip(own_host):
        return "it is on the controller's own machine"
    return objection_to_anybody(seen)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
