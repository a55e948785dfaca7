"""What a relay decides, without sockets: admissions, hellos, who is paired with whom, and every limit."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from klinket.domain.shares import FairShares, NestedShares
from klinket.relay.limits import RelayLimits
from klinket.wire.relay import (
    ADMISSION_ID_BYTES,
    COUNTER_WINDOW,
    KEY_BYTES,
    Admission,
    RelayAnswer,
    RelayError,
    RelayHello,
    RelayRole,
)
from klinket.wire.relay_datagram import leg_name
from klinket.wire.ticket import LEEWAY_SECONDS, KeySet, TicketClaims, TicketRole, verify_ticket

#: A connection as the shell knows it; the core only hands it back.
PeerId = int
#: Whose share a pair takes: the account (or who has none), and the session within it.
Holder = tuple[str, str]
_ROLES = {TicketRole.CLIENT: RelayRole.CLIENT, TicketRole.CONNECTOR: RelayRole.CONNECTOR}


@dataclass(frozen=True, slots=True)
class Leg:
    """One end's connection of a pair: its name (wire.relay_datagram.leg_name), and whose it is, as its ticket says."""

    name: bytes
    role: RelayRole
    holder: str


@dataclass(frozen=True, slots=True)
class Paired:
    """The shell joins these two, and calls `pair_ended` with the `holder` (the client's) at their end.

    `legs`: the client's and the connector's.
    """

    client: PeerId
    connector: PeerId
    holder: Holder = field(default=("", ""), compare=False)
    legs: tuple[Leg, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The shell answers this one and closes it."""

    peer: PeerId
    answer: RelayAnswer


Output = Paired | Refused


@dataclass(slots=True)
class _Admitted:
    claims: TicketClaims
    key: bytes = field(repr=False)
    highest: int = 0
    seen: set[int] = field(default_factory=set)
    unfinished: int = 0
    #: One for all pairs of the admission.
    holder: Holder = field(init=False)

    def __post_init__(self) -> None:
        self.holder = self.claims.shared_by, self.claims.holder


@dataclass(frozen=True, slots=True)
class _Waiting:
    peer: PeerId
    admission: bytes
    holder: Holder
    until: float
    leg: Leg


class RelayCore:
    """Holds admissions and waiting connections. `now` in seconds since the epoch at the controller."""

    def __init__(self, limits: RelayLimits, entropy: Callable[[int], bytes]) -> None:
        self._limits = limits
        self._entropy = entropy
        self._keys = KeySet()
        self._network = ""
        self._relay = 0
        self._admitted: OrderedDict[bytes, _Admitted] = OrderedDict()
        self._idle: dict[int, list[_Waiting]] = {}
        self._clients: dict[int, deque[_Waiting]] = {}
        self._where: dict[PeerId, tuple[RelayRole, int, _Waiting]] = {}
        self._shown: set[str] = set()
        self._shown_until: list[tuple[float, str, str]] = []
        self._shown_shares: FairShares[str] = FairShares(limits.max_shown_tickets)
        self._admission_shares: FairShares[str] = FairShares(limits.max_admissions)
        self.pairs = NestedShares(limits.max_pairs)
        self.draining = False

    def configure(self, relay: int, network: str, ticket_keys: dict[str, object]) -> None:
        """Take over who this relay is and which keys sign tickets; raises InvalidToken."""
        self._relay, self._network, self._keys = relay, network, KeySet.from_jwks(ticket_keys)

    @property
    def waiting(self) -> int:
        """Return how many connections wait for a partner."""
        return len(self._where)

    @property
    def admissions(self) -> int:
        """Return how many admissions count, those that have just expired among them."""
        return len(self._admitted)

    @property
    def configured(self) -> bool:
        """Return whether the controller has said which tickets count."""
        return bool(self._network)

    # ---- admission

    def admit(self, ticket: str, now: float) -> Admission:
        """Return the admission of a valid ticket that was not shown before; raises RelayError or InvalidToken."""
        if self.draining:
            raise RelayError(RelayAnswer.DRAINING)
        claims = verify_ticket(ticket, self._keys, network=self._network, relay=self._relay, now=now)
        self._forget_expired(now)
        own = [id for id, one in self._admitted.items() if one.claims.holder == claims.holder]
        # The holder's own oldest gives way and leaves its place: a peer that restarts must not lock itself out.
        gives_way = own[0] if len(own) >= self._limits.max_admissions_per_holder else None
        if gives_way is None and not self._admission_shares.take(claims.shared_by):
            raise RelayError(RelayAnswer.LIMIT, "the account has its share of this relay's admissions")
        try:
            self._note_shown(claims)
        except RelayError:
            if gives_way is None:
                self._admission_shares.give_back(claims.shared_by)
            raise
        if gives_way is not None:
            del self._admitted[gives_way]
        id, key = self._entropy(ADMISSION_ID_BYTES), self._entropy(KEY_BYTES)
        self._admitted[id] = _Admitted(claims, key)
        return Admission(id, key, claims.expires_at)

    def _note_shown(self, claims: TicketClaims) -> None:
        if claims.id in self._shown:
            raise RelayError(RelayAnswer.TICKET_REFUSED, "the ticket was shown before: each is taken once")
        if not self._shown_shares.take(claims.shared_by):
            raise RelayError(RelayAnswer.LIMIT, "the account has its share of this relay's tickets")
        self._shown.add(claims.id)
        heapq.heappush(self._shown_until, (claims.expires_at + LEEWAY_SECONDS, claims.id, claims.shared_by))

    def _forget_expired(self, now: float) -> None:
        while self._shown_until and self._shown_until[0][0] <= now:
            _, ticket, holder = heapq.heappop(self._shown_until)
            self._shown.discard(ticket)
            self._shown_shares.give_back(holder)
        for id in [id for id, one in self._admitted.items() if one.claims.expires_at <= now]:
            self._admission_shares.give_back(self._admitted.pop(id).claims.shared_by)

    # ---- hellos

    def hello(self, peer: PeerId, data: bytes, now: float) -> list[Output]:
        """Take a connection's hello (HELLO_BYTES); returns what the shell has to do. Raises ProtocolError.

        No output: the connection waits for a partner.
        """
        hello = RelayHello.unverified(data)
        admitted = self._admitted.get(hello.admission)
        if admitted is None:
            return [Refused(peer, RelayAnswer.UNKNOWN_ADMISSION)]
        hello.verify(data, admitted.key)
        refusal = self._refusal(hello, admitted, now)
        if refusal is not None:
            return [Refused(peer, refusal)]
        if hello.role is RelayRole.CONNECTOR:
            return self._connector_waits(peer, hello, admitted, now)
        return self._client_arrives(peer, hello, admitted, now)

    def admitted(self, id: bytes, now: float) -> tuple[TicketClaims, bytes] | None:
        """Return what an admission is for, and its key; None for one that is unknown or over."""
        found = self._admitted.get(id)
        return None if found is None or found.claims.expires_at <= now else (found.claims, found.key)

    def _refusal(self, hello: RelayHello, admitted: _Admitted, now: float) -> RelayAnswer | None:
        if self.draining:
            return RelayAnswer.DRAINING
        if admitted.claims.expires_at <= now:
            return RelayAnswer.EXPIRED
        if hello.role is not _ROLES[admitted.claims.role] or hello.connector not in admitted.claims.connectors:
            return RelayAnswer.NOT_ALLOWED
        if hello.counter in admitted.seen or hello.counter + COUNTER_WINDOW <= admitted.highest:
            return RelayAnswer.REPLAYED
        admitted.seen.add(hello.counter)
        if hello.counter > admitted.highest:
            admitted.highest = hello.counter
            if len(admitted.seen) > 2 * COUNTER_WINDOW:
                admitted.seen = {one for one in admitted.seen if one + COUNTER_WINDOW > admitted.highest}
        return None

    def _connector_waits(self, peer: PeerId, hello: RelayHello, admitted: _Admitted, now: float) -> list[Output]:
        clients = self._clients.get(hello.connector)
        leg = _leg(hello, admitted)
        if clients:
            return [self._pair(clients[0].peer, peer, clients[0].holder, (clients[0].leg, leg))]
        idle = self._idle.setdefault(hello.connector, [])
        if len(idle) >= self._limits.max_idle_per_connector:
            return [Refused(peer, RelayAnswer.LIMIT)]
        waiting = _Waiting(peer, hello.admission, admitted.holder, now + self._limits.max_idle_seconds, leg)
        idle.append(waiting)
        self._where[peer] = RelayRole.CONNECTOR, hello.connector, waiting
        return []

    def _client_arrives(self, peer: PeerId, hello: RelayHello, admitted: _Admitted, now: float) -> list[Output]:
        holder = admitted.holder
        if not self.pairs.take(*holder):
            return [Refused(peer, RelayAnswer.LIMIT)]
        idle, leg = self._idle.get(hello.connector), _leg(hello, admitted)
        if idle:
            return [self._pair(peer, idle[-1].peer, holder, (leg, idle[-1].leg))]
        if admitted.unfinished >= self._limits.max_unfinished_per_ticket:
            self.pairs.give_back(*holder)
            return [Refused(peer, RelayAnswer.LIMIT)]
        admitted.unfinished += 1
        waiting = _Waiting(peer, hello.admission, holder, now + self._limits.pairing_seconds, leg)
        self._clients.setdefault(hello.connector, deque()).append(waiting)
        self._where[peer] = RelayRole.CLIENT, hello.connector, waiting
        return []

    def _pair(self, client: PeerId, connector: PeerId, holder: Holder, legs: tuple[Leg, Leg]) -> Paired:
        self._no_longer_waits(client)
        self._no_longer_waits(connector)
        return Paired(client, connector, holder, legs)

    def pair_ended(self, holder: Holder) -> None:
        """Free the place of a pair that has ended, or could not be joined."""
        self.pairs.give_back(*holder)

    def gone(self, peer: PeerId) -> None:
        """Forget a waiting connection: it closed."""
        found = self._where.get(peer)
        self._no_longer_waits(peer)
        if found is not None and found[0] is RelayRole.CLIENT:
            self.pairs.give_back(*found[2].holder)

    def _no_longer_waits(self, peer: PeerId) -> None:
        found = self._where.pop(peer, None)
        if found is None:
            return
        role, connector, waiting = found
        if role is RelayRole.CONNECTOR:
            self._idle[connector].remove(waiting)
            if not self._idle[connector]:
                del self._idle[connector]
        else:
            self._clients[connector].remove(waiting)
            if not self._clients[connector]:
                del self._clients[connector]
            if (admitted := self._admitted.get(waiting.admission)) is not None:
                admitted.unfinished -= 1

    # ---- stopping

    def drain(self) -> list[Output]:
        """Take nobody any more; returns the refusals of connections that wait. Pairs go on."""
        self.draining = True
        waiting = list(self._where)
        for peer in waiting:
            self.gone(peer)
        return [Refused(peer, RelayAnswer.DRAINING) for peer in waiting]

    # ---- time

    def next_deadline(self) -> float | None:
        """Return when the next waiting connection has waited long enough; None when nothing waits."""
        return min((waiting.until for _, _, waiting in self._where.values()), default=None)

    def deadline_reached(self, now: float) -> list[Output]:
        """Return the refusals of connections that waited too long."""
        late = [(peer, role) for peer, (role, _, waiting) in self._where.items() if waiting.until <= now]
        for peer, _ in late:
            self.gone(peer)
        self._forget_expired(now)
        return [
            Refused(peer, RelayAnswer.NO_CONNECTOR if role is RelayRole.CLIENT else RelayAnswer.EXPIRED) for peer, role in late
        ]


def _leg(hello: RelayHello, admitted: _Admitted) -> Leg:
    return Leg(leg_name(hello.admission, hello.counter), hello.role, admitted.claims.holder)
