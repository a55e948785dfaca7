"""What a relay has done since it began: counts of its pairs and refusals, and sums that pairs leave when they end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from klinket.wire.relay import RelayAnswer


@dataclass
class RelayTraffic:
    """Counts since the relay began. Bytes: what the kernel has received from each side of pairs that have ended."""

    pairs: int = 0
    admissions: int = 0
    refused: Counter[RelayAnswer] = field(default_factory=Counter)
    from_clients: int = 0
    from_connectors: int = 0

    def pair_ended(self, received: tuple[int, int]) -> None:
        """Add what a pair has moved: from its client and from its connector."""
        self.from_clients += received[0]
        self.from_connectors += received[1]


class Drop(Enum):
    """Why a relay did not forward a datagram, or answer a bind; the words of metrics."""

    #: No leg or admission of that name; or no way from that address to that receiver is bound.
    UNKNOWN = "unknown"
    #: The other end of the pair has bound no address.
    ONE_SIDED = "one-sided"
    #: Does not verify, is another's leg, or is neither a bind nor sealed.
    REFUSED = "refused"
    REPLAYED = "replayed"
    #: Challenges too close to each other, the account's share, or a relay that is stopping.
    LIMIT = "limit"
    #: The kernel had no room for it.
    NO_ROOM = "no-room"
    #: The network refused it: mostly it was too large for a link on the way.
    NOT_SENT = "not-sent"


@dataclass
class DatagramTraffic:
    """Counts since the relay began: of sealed datagrams that were forwarded, and of challenges."""

    datagrams_from_clients: int = 0
    datagrams_from_connectors: int = 0
    bytes_from_clients: int = 0
    bytes_from_connectors: int = 0
    challenges: int = 0
    dropped: Counter[Drop] = field(default_factory=Counter)
