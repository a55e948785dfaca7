"""What a client counts: flows, their bytes, logins, and losses of its channel. A daemon's sessions share one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from klinket.domain.flow import FlowFailure


@dataclass(slots=True)
class ClientTraffic:
    """`refused`: flows that were not opened, by reason. Bytes are of TCP flows that have ended."""

    opened: int = 0
    logins: int = 0
    channel_losses: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    refused: Counter[FlowFailure] = field(default_factory=Counter)
