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


@dataclass(eq=False)
class _Meeting:
    id: str
    until: float
    client: _Side
    connector: _Side
    connector_id: int


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
        if meeting is None or side is None or len(side.seen) >= ENDPOINTS:
            raise Forbidden("there is no meeting with this token, or it is over")
        if address is None or address != parse_ip(side.address):
            raise Forbidden("the token was given to another address: its live channel does not come from here")
        seen = Endpoint(address, port)
        if (reason := _objection(seen, own_host)) is not None:
            self._end(meeting, reason)
            raise Forbidden(f"hole punching does not lead there: {reason}")
        side.seen.append(seen)
        side.connect_ms = max(side.connect_ms, min(float(2 * MAX_START_MS), max(0.0, body.connect_ms)))
        if len(meeting.client.seen) == len(meeting.connector.seen) == ENDPOINTS:
            self._start(meeting)
        return str(seen)

    def _start(self, meeting: _Meeting) -> None:
        client, connector = meeting.client, meeting.connector
        for own, other in ((client, connector), (connector, client)):
            for endpoint in other.seen:
                if (reason := objection(own.seen[0].host, endpoint)) is not None:
                    self._end(meeting, reason)
                    return
        self._forget(meeting)
        self._told("started")
        latest = max(client.connect_ms, connector.connect_ms)
        for own, other in ((connector, client), (client, connector)):
            wait = min(MAX_START_MS, round((latest - own.connect_ms) / 2))
            own.outbox.put(PunchStart(id=meeting.id, peers=[str(one) for one in other.seen], in_ms=wait))

    def _end(self, meeting: _Meeting, reason: str) -> None:
        self._forget(meeting)
        self._told("refused")
        meeting.client.outbox.put(PunchRefused(connector=meeting.connector_id, message=reason))

    def _forget(self, meeting: _Meeting) -> None:
        for side in (meeting.client, meeting.connector):
            self._meetings.pop(_digest(side.token), None)

    def _forget_late(self, now: float) -> None:
        """Forget meetings that took too long: they are in the order of their beginning."""
        while self._meetings:
            meeting, _ = next(iter(self._meetings.values()))
            if meeting.until > now:
                return
            self._forget(meeting)

    def _random(self) -> str:
        return urlsafe_b64encode(self._entropy(TOKEN_BYTES)).decode()


def _objection(seen: Endpoint, own_host: str) -> str | None:
    if seen.host == parse_ip(own_host):
        return "it is on the controller's own machine"
    return objection_to_anybody(seen)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
