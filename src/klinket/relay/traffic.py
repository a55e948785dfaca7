"""What a relay has done since it began: counts of its pairs and refusals, and sums that pairs leave when they end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

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
