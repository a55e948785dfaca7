"""Which datagrams a relay forwards, without sockets: between the two proven addresses of one pair, and nowhere else.

An end binds its address to its leg of a pair (wire.relay_datagram). What comes from a bound address, with the receiver that was
bound with it, goes to the address that the other end of the pair has bound. Everything inside stays sealed between the ends.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from typing import Any

from klinket.domain.errors import ProtocolError
from klinket.domain.shares import NestedShares
from klinket.relay.core import Holder, Leg, RelayCore
from klinket.relay.limits import RelayLimits
from klinket.relay.traffic import DatagramTraffic, Drop
from klinket.wire import relay_datagram as wire
from klinket.wire.relay import RelayRole
from klinket.wire.relay_datagram import COOKIE_BYTES, NO_COOKIE, Bind
from klinket.wire.ticket import TicketClaims, TicketRole

_SECRET_BYTES = 32


class _Pair:
    """What two ends have in common. `bound`: how many of them have an address here."""

    __slots__ = ("bound", "holder")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.bound = 0


class End:
    """One end of a pair. `address`: where it has proven to be, None: nowhere; `single`: no batches go there."""

    __slots__ = (
        "address", "admitted_until", "challenged_at", "from_client", "leg", "number", "pair", "peer", "receiver", "single",
        "until",
    )  # fmt: skip

    def __init__(self, leg: Leg, pair: _Pair) -> None:
        self.leg = leg
        self.pair = pair
        self.peer = self
        self.from_client = leg.role is RelayRole.CLIENT
        self.number = 0
        self.challenged_at = float("-inf")
        self.address: Any = None
        self.receiver = b""
        self.until = self.admitted_until = 0.0
        self.single = False


class DatagramForwarding:
    """`clock`: seconds since the epoch at the controller; `ticks`: monotonic seconds."""

    def __init__(
        self,
        core: RelayCore,
        limits: RelayLimits,
        entropy: Callable[[int], bytes],
        clock: Callable[[], float],
        ticks: Callable[[], float],
    ) -> None:
        self._core = core
        self._limits = limits
        self._clock = clock
        self._ticks = ticks
        self._secret = entropy(_SECRET_BYTES)
        #: By the names of their two legs: pairs that are joined, whose share they take, and what of them was asked for already.
        self._joined: dict[bytes, tuple[Holder, Sequence[Leg]]] = {}
        self._ends: dict[bytes, End] = {}
        self._shares = NestedShares(limits.max_datagram_pairs)
        #: Who sends from an address to a receiver: all that is looked at for a sealed datagram.
        self.senders: dict[tuple[Any, bytes], End] = {}
        self.counts = DatagramTraffic()

    @property
    def bound(self) -> int:
        """Return how many addresses are bound."""
        return len(self.senders)

    # ---- pairs

    def joined(self, holder: Holder, legs: Sequence[Leg]) -> None:
        """Let the two ends of a pair bind addresses from now on. `holder`: whose share they take, the client's."""
        for leg in legs:
            self._joined[leg.name] = holder, legs

    def parted(self, legs: Sequence[Leg]) -> None:
        """Forward nothing of a pair any more: it has ended."""
        for leg in legs:
            self._joined.pop(leg.name, None)
            end = self._ends.pop(leg.name, None)
            if end is not None:
                self._unbind(end)

    def _end(self, name: bytes) -> End:
        """Return a joined pair's end. It is made when something is asked for it: most pairs have no datagrams."""
        if name not in self._ends:
            holder, legs = self._joined[name]
            pair = _Pair(holder)
            one, two = (End(leg, pair) for leg in legs)
            one.peer, two.peer = two, one
            self._ends[one.leg.name], self._ends[two.leg.name] = one, two
        return self._ends[name]

    def end_stale(self) -> None:
        """Unbind addresses whose end has been silent for long, or whose admission is over."""
        ticks, now = self._ticks(), self._clock()
        for end in [end for end in self.senders.values() if end.until <= ticks or end.admitted_until <= now]:
            self._unbind(end)

    # ---- binds

    def asked(self, data: bytes, address: Any) -> bytes | None:
        """Take what may be a bind from an address; returns the answer, which is shorter, or None: there is none."""
        try:
            bind = Bind.unverified(data)
        except ProtocolError:
            return self._dropped(Drop.REFUSED)
        admitted = self._core.admitted(bind.admission, self._clock())
        if bind.leg not in self._joined or admitted is None:
            return self._dropped(Drop.UNKNOWN)
        claims, key = admitted
        try:
            wire.verify(data, key)
        except ProtocolError:
            return self._dropped(Drop.REFUSED)
        end = self._end(bind.leg)
        if claims.holder != end.leg.holder or (claims.role is TicketRole.CLIENT) is not end.from_client:
            return self._dropped(Drop.REFUSED)
        if bind.number <= end.number:
            return self._dropped(Drop.REPLAYED)
        end.number = bind.number
        if not self._proves(bind, address):
            # Also where it was proven before: whoever has left an address can still write it on an envelope.
            return self._challenge(end, bind, key, address)
        if not self._bind(end, bind, address, claims):
            return self._dropped(Drop.LIMIT)
        return wire.bound(key, bind.own, bind.number)

    def _proves(self, bind: Bind, address: Any) -> bool:
        turn = int(self._ticks() / self._limits.cookie_seconds)
        good = [hmac.compare_digest(bind.cookie, self._cookie(bind, address, one)) for one in (turn, turn - 1)]
        return bind.cookie != NO_COOKIE and any(good)

    def _cookie(self, bind: Bind, address: Any, turn: int) -> bytes:
        """Return what only who reads at `address` can bring back from there, for this leg and these receivers."""
        place = repr(address).encode()
        said = b"".join((bind.leg, bind.own, bind.to, turn.to_bytes(8, "big"), place))
        return hmac.digest(self._secret, said, "sha256")[:COOKIE_BYTES]

    def _challenge(self, end: End, bind: Bind, key: bytes, address: Any) -> bytes | None:
        ticks = self._ticks()
        if ticks - end.challenged_at < self._limits.bind_challenge_seconds:
            return self._dropped(Drop.LIMIT)
        end.challenged_at = ticks
        self.counts.challenges += 1
        turn = int(ticks / self._limits.cookie_seconds)
        return wire.challenge(key, bind.own, bind.number, self._cookie(bind, address, turn))

    def _bind(self, end: End, bind: Bind, address: Any, claims: TicketClaims) -> bool:
        """Forward for an end that has proven its address; False where its share is used up, or the relay is stopping."""
        sends = address, bind.to
        if self.senders.get(sends) is not end:
            if sends in self.senders:
                return False  # two paths of one socket to the same receiver: the first has it
            if not end.pair.bound and (self._core.draining or not self._shares.take(*end.pair.holder)):
                return False
            end.pair.bound += 1
            self._unbind(end)
            self.senders[sends] = end
            end.address, end.receiver, end.single = address, bind.to, False
        end.until, end.admitted_until = self._ticks() + self._limits.binding_seconds, claims.expires_at
        return True

    def _unbind(self, end: End) -> None:
        if end.address is None:
            return
        del self.senders[end.address, end.receiver]
        end.address = None
        end.pair.bound -= 1
        if not end.pair.bound:
            self._shares.give_back(*end.pair.holder)

    def _dropped(self, reason: Drop) -> bytes | None:
        self.counts.dropped[reason] += 1
        return None  # no answer
