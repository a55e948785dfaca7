"""What a connector's flows have moved: sums that are made when somebody reads them, so that no frame pays for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable
from enum import Enum
from typing import Protocol

from klinket.connector.core import Flow
from klinket.domain.flow import FlowFailure
from klinket.net.flow_summary import FlowSummary
from klinket.net.pacing import Lanes
from klinket.wire.pipe_messages import Failure


class Transport(Enum):
    """The way between client and connector; the words are those of metrics."""

    DIRECT = "direct"
    RELAY = "relay"


class Carrier(Protocol):
    """What moves the bytes of one flow. Content out of the client's pipe is received, into it sent."""

    @property
    def bytes_sent(self) -> int: ...
    @property
    def bytes_received(self) -> int: ...

    def begin(self) -> Awaitable[FlowSummary]:
        """Carry until either end, idleness or a cut ends it, and close what was given; what is awaited says what moved.

        Whoever stops waiting for that has to cut().
        """
        ...

    def cut(self, failure: Failure) -> None:
        """End it at once, and tell the client why where that needs no waiting."""
        ...

    def pace(self, lanes: Lanes | None) -> None:
        """Move no more than these lanes let it from now on; None: as much as there is."""
        ...


class Traffic:
    """Counts since the connector began."""

    def __init__(self) -> None:
        self.opened = 0
        #: Flows that ended because access did: a cut, the end of a grant, a narrower one.
        self.ended = 0
        self.refused: Counter[FlowFailure] = Counter()
        self._live: dict[Transport, dict[Flow, Carrier]] = {transport: {} for transport in Transport}
        self._sent: Counter[Transport] = Counter()
        self._received: Counter[Transport] = Counter()

    def carries(self, flow: Flow, carrier: Carrier, relay: int) -> None:
        """Note who moves a flow's bytes. `relay`: its id, 0 for a direct way."""
        self.opened += 1
        self._live[Transport.RELAY if relay else Transport.DIRECT][flow] = carrier

    def live(self) -> list[tuple[Flow, Carrier]]:
        """Return the flows that are carried now."""
        return [one for carried in self._live.values() for one in carried.items()]

    def over(self, flow: Flow) -> None:
        """Keep what a flow has moved; one that never moved anything does not matter."""
        for transport, carried in self._live.items():
            carrier = carried.pop(flow, None)
            if carrier is not None:
                self._sent[transport] += carrier.bytes_sent
                self._received[transport] += carrier.bytes_received

    def from_clients(self) -> dict[Transport, int]:
        """Return the bytes of content that clients have sent."""
        return {
            transport: self._received[transport] + sum(carrier.bytes_received for carrier in carried.values())
            for transport, carried in self._live.items()
        }

    def to_clients(self) -> dict[Transport, int]:
        """Return the bytes of content that went to clients."""
        return {
            transport: self._sent[transport] + sum(carrier.bytes_sent for carrier in carried.values())
            for transport, carried in self._live.items()
        }
