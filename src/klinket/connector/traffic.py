"""What a connector's flows have moved: sums that are made when somebody reads them, so that no frame pays for it."""

from __future__ import annotations

from collections import Counter
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

    async def carry(self) -> FlowSummary:
        """Carry until either end, idleness or a cut ends it, and close what it was given; returns what moved."""
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
        self._live: dict[Flow, tuple[Carrier, Transport]] = {}
        self._sent: Counter[Transport] = Counter()
        self._received: Counter[Transport] = Counter()

    def carries(self, flow: Flow, carrier: Carrier, relay: int) -> None:
        """Note who moves a flow's bytes. `relay`: its id, 0 for a direct way."""
        self.opened += 1
        self._live[flow] = carrier, Transport.RELAY if relay else Transport.DIRECT

    def live(self) -> list[tuple[Flow, Carrier]]:
        """Return the flows that are carried now."""
        return [(flow, carrier) for flow, (carrier, _) in self._live.items()]

    def over(self, flow: Flow) -> None:
        """Keep what a flow has moved; one that never moved anything does not matter."""
        found = self._live.pop(flow, None)
        if found is not None:
            carrier, transport = found
            self._sent[transport] += carrier.bytes_sent
            self._received[transport] += carrier.bytes_received

    def from_clients(self) -> dict[Transport, int]:
        """Return the bytes of content that clients have sent."""
        total = {transport: self._received[transport] for transport in Transport}
        for carrier, transport in self._live.values():
            total[transport] += carrier.bytes_received
        return total

    def to_clients(self) -> dict[Transport, int]:
        """Return the bytes of content that went to clients."""
        total = {transport: self._sent[transport] for transport in Transport}
        for carrier, transport in self._live.values():
            total[transport] += carrier.bytes_sent
        return total
