"""What a flow was given of datagrams."""

from __future__ import annotations

from klinket.net import segments


class Taken(list[bytes]):
    """Each datagram; `take` is a segments.Taker. `calls`: how many datagrams came together, call by call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def take(self, datagrams: bytes | memoryview, size: int) -> None:
        """Keep datagrams."""
        before = len(self)
        self.extend(segments.split(datagrams, size))
        self.calls.append(len(self) - before)
