"""Connections that have not proved who they are yet: how many, from where, for how long (security.md 20).

Over HTTP a proof holds for one request: with the answer the connection counts as unproven again, from that moment on. A
WebSocket stays proven until it ends. Of the proven ones nobody may hold more than are free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from klinket.domain.errors import Throttled
from klinket.domain.newcomers import Newcomers
from klinket.domain.shares import FairShares
from klinket.net.sources import source_of

#: Seconds from accepting a connection, or from the last answer on it, until somebody has proved who they are on it; TLS, head
#: and body included.
UNPROVEN_SECONDS = 20.0
#: Connections at a time on which nobody has proved anything yet, in all and of one source address (IPv6: one /64).
MAX_UNPROVEN = 4_096
MAX_UNPROVEN_PER_SOURCE = 1_024
#: Seconds after which a request that found no seat should come again.
RETRY_SECONDS = 5.0
#: File descriptors kept free for the database, the relay and files.
SPARE_DESCRIPTORS = 128


@dataclass(eq=False)
class Seat:
    """One connection. `close` ends it at once.

    `since`: when it began to be unproven. `holder`: who has proved it, where that counts. `tls`: the version that was agreed.
    """

    source: str
    since: float
    close: Callable[[], None] = lambda: None
    proven: bool = False
    holder: str = ""
    tls: str = ""
    when_proven: list[Callable[[], None]] = field(default_factory=list)


class Seats:
    """All connections of one listener. `now` in seconds on a clock that does not go back."""

    def __init__(self, descriptors: int) -> None:
        """`descriptors`: the limit of open files."""
        self._max_all = max(16, descriptors - SPARE_DESCRIPTORS)
        self._max_unproven = min(MAX_UNPROVEN, max(8, self._max_all // 2))
        self._max_of_source = min(MAX_UNPROVEN_PER_SOURCE, max(4, self._max_unproven // 4))
        self._all: set[Seat] = set()
        self._shares: FairShares[str] = FairShares(self._max_all)
        self._unproven: Newcomers[Seat] = Newcomers()
        #: Those of them that have not asked anything: they may be displaced.
        self._silent: Newcomers[Seat] = Newcomers()

    def take(self, address: str, now: float) -> Seat | None:
        """Return a seat for a new connection, or None.

        Where there is no room, the longest silent connection of the biggest source goes: a flood displaces itself. One that
        has proved something, or whose whole request has come, is never displaced.
        """
        source = source_of(address)
        if self._unproven.of(source) >= self._max_of_source:
            if not self._displace(source):
                return None
        elif len(self._unproven) >= self._max_unproven or len(self._all) >= self._max_all:
            biggest = self._unproven.biggest()
            if biggest is None or not self._displace(biggest):
                return None
        seat = Seat(source, now)
        self._all.add(seat)
        self._unproven.add(source, seat)
        self._silent.add(source, seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """The connection has ended; once or more often."""
        self._all.discard(seat)
        self._settle(seat)
        self._free_share(seat)

    def prove(self, seat: Seat, holder: str = "") -> bool:
        """Somebody has proved who they are on this connection: it counts as unproven no longer.

        False, and nothing is changed, where `holder` (an API token, a service account) has its share of the seats already.
        Without a holder the connection takes no share: what is answered at once.
        """
        if seat.proven or seat not in self._all:
            return True
        if holder:
            if not self._shares.take(holder):
                return False
            seat.holder = holder
        seat.proven = True
        self._settle(seat)
        for tell in seat.when_proven:
            tell()
        return True

    def answered(self, seat: Seat, now: float) -> None:
        """The answer to a request is sent. What the connection has proved counts no longer; a new proof is waited for."""
        if seat not in self._all:
            return
        self._silent.add(seat.source, seat)
        if not seat.proven:
            return
        seat.proven = False
        seat.since = now
        self._free_share(seat)
        self._unproven.add(seat.source, seat)

    def asked(self, seat: Seat) -> None:
        """A whole request has come on this connection: it waits for us, and not we for it, until answered()."""
        self._silent.remove(seat.source, seat)

    def end_late(self, now: float) -> int:
        """Close those that have proved nothing within UNPROVEN_SECONDS; returns how many."""
        late = [seat for _, seat in self._unproven.all() if now - seat.since >= UNPROVEN_SECONDS]
        for seat in late:
            self.leave(seat)
            seat.close()
        return len(late)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def unproven(self) -> int:
        """Return on how many connections nobody has proved anything."""
        return len(self._unproven)

    def _displace(self, source: str) -> bool:
        silent = self._silent.oldest(source)
        if silent is None:
            return False
        self.leave(silent)
        silent.close()
        return True

    def _free_share(self, seat: Seat) -> None:
        if seat.holder:
            self._shares.give_back(seat.holder)
            seat.holder = ""

    def _settle(self, seat: Seat) -> None:
        self._unproven.remove(seat.source, seat)
        self._silent.remove(seat.source, seat)


@dataclass(frozen=True)
class Place:
    """A seat as requests carry it, under `state` of their scope."""

    seats: Seats
    seat: Seat


#: Key of a request's state under which its place is.
PLACE = "klinket.place"


def proven(request: HTTPConnection, holder: str = "") -> None:
    """Note that whoever is at the other end of this request has proved who they are.

    Raises Throttled where `holder` has its share of the connections.
    """
    place = _place_of(request)
    if place is not None and not place.seats.prove(place.seat, holder):
        raise Throttled(
            f"{holder} holds as many connections as are free",
            hint="close connections that are not used, and ask again in a moment",
            retry_after=RETRY_SECONDS,
        )


def abandon(request: HTTPConnection) -> None:
    """End the connection of a request at once, with what is not sent yet."""
    place = _place_of(request)
    if place is not None:
        place.seat.close()


def is_modern(request: HTTPConnection) -> bool:
    """Return whether a connection is inside TLS 1.3, as everything between klinket's own parts is."""
    place = _place_of(request)
    return place is None or place.seat.tls == "TLSv1.3"


def asked(request: HTTPConnection) -> None:
    """Note that the whole request has come."""
    place = _place_of(request)
    if place is not None:
        place.seats.asked(place.seat)


def _place_of(request: HTTPConnection) -> Place | None:
    place = request.scope.get("state", {}).get(PLACE)
    return place if isinstance(place, Place) else None
